"""What must hold between the tables of the file.

The rules read the raw data, not the models: they must speak even when some value elsewhere has the wrong type, so that
one run lists every problem. Each rule therefore skips what is not of the type it needs (the models report that).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from shardproxy.config.passwords import SOURCES
from shardproxy.config.units import Address, parse_address
from shardproxy.durations import parse_duration

KeyPath = tuple[str | int, ...]
Raw = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key path, what was found there, what was expected."""

    path: KeyPath
    found: str
    expected: str


def cross_check(data: Raw) -> Iterator[Problem]:
    """All problems between tables, in the order of RULES."""
    for rule in RULES:
        yield from rule(data)


def _table(data: object, key: str) -> Raw:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _entries(data: Raw, key: str) -> Iterator[tuple[str, Raw]]:
    for name, value in _table(data, key).items():
        if isinstance(value, Mapping):
            yield name, value


def _known(name: object, known: Mapping[str, object], what: str) -> str:
    names = ", ".join(f'"{n}"' for n in known) or "none is defined"
    close = get_close_matches(name, list(known), 1) if isinstance(name, str) else []
    return f"the name of a {what}" + (f' (did you mean "{close[0]}"?)' if close else f" ({names})")


def one_password_source(data: Raw) -> Iterator[Problem]:
    """The backend and each user have exactly one source."""
    tables: list[tuple[KeyPath, Raw, tuple[str, ...]]] = [
        (("users", name), user, SOURCES) for name, user in _entries(data, "users")
    ]
    if isinstance(data.get("backend"), Mapping):
        tables.insert(0, (("backend",), _table(data, "backend"), SOURCES[1:]))
    for path, table, sources in tables:
        found = [s for s in sources if s in table]
        if len(found) != 1:
            yield Problem(path, " and ".join(found) or "no password", f"exactly one of {', '.join(sources)}")


def user_keyspaces(data: Raw) -> Iterator[Problem]:
    """Users name keyspaces that exist, and a default among those they may use."""
    known = _table(data, "keyspaces")
    for name, user in _entries(data, "users"):
        allowed = user.get("keyspaces", [])
        allowed = allowed if isinstance(allowed, list) else []
        for i, keyspace in enumerate(allowed):
            if isinstance(keyspace, str) and keyspace not in known:
                yield Problem(("users", name, "keyspaces", i), repr(keyspace), _known(keyspace, known, "keyspace"))
        default = user.get("default_keyspace", "")
        if not isinstance(default, str) or not default:
            continue
        path = ("users", name, "default_keyspace")
        if default not in known:
            yield Problem(path, repr(default), _known(default, known, "keyspace"))
        elif allowed and default not in allowed:
            yield Problem(path, repr(default), f"one of the user's keyspaces ({', '.join(map(repr, allowed))})")


def tls_files(data: Raw) -> Iterator[Problem]:
    """A certificate needs its key, and requiring TLS needs both."""
    mysql = _table(_table(data, "listen"), "mysql")
    cert, key = mysql.get("tls_cert") or "", mysql.get("tls_key") or ""
    if bool(cert) != bool(key):
        given, missing = ("tls_cert", "tls_key") if cert else ("tls_key", "tls_cert")
        yield Problem(("listen", "mysql", missing), "nothing", f"a file, because {given} is given")
    if mysql.get("require_tls") is True and not (cert or key):
        yield Problem(("listen", "mysql", "require_tls"), "true", "tls_cert and tls_key with it")


def rebalance_has_a_password(data: Raw) -> Iterator[Problem]:
    """An account of its own has exactly one source; without a user there is none."""
    table = _table(data, "rebalance")
    found = [source for source in SOURCES[1:] if source in table]
    if table.get("user") and len(found) != 1:
        yield Problem(("rebalance",), " and ".join(found) or "no password", f"exactly one of {', '.join(SOURCES[1:])}")
    elif found and not table.get("user"):
        yield Problem(("rebalance", found[0]), "a password", "user with it")


def store_fits(data: Raw) -> Iterator[Problem]:
    """etcd needs endpoints and a password for its user; the embedded store has none of etcd's keys."""
    store = _table(data, "store")
    if store.get("kind", "embedded") == "embedded":
        for name in ("endpoints", "user", *SOURCES[1:], "tls", "tls_ca", "tls_cert", "tls_key"):
            if store.get(name):
                yield Problem(("store", name), name, 'kind = "etcd" with it')
        return
    if not store.get("endpoints"):
        yield Problem(("store", "endpoints"), "nothing", 'at least one "host:port", because kind = "etcd"')
    if "path" in store:
        yield Problem(("store", "path"), "path", 'kind = "embedded" with it')
    found = [source for source in SOURCES[1:] if source in store]
    if store.get("user") and len(found) != 1:
        yield Problem(("store",), " and ".join(found) or "no password", f"exactly one of {', '.join(SOURCES[1:])}")
    elif found and not store.get("user"):
        yield Problem(("store", found[0]), "a password", "user with it")
    cert, key = store.get("tls_cert") or "", store.get("tls_key") or ""
    if bool(cert) != bool(key):
        given, missing = ("tls_cert", "tls_key") if cert else ("tls_key", "tls_cert")
        yield Problem(("store", missing), "nothing", f"a file, because {given} is given")
    if store.get("tls") is not True:
        for name in ("tls_ca", "tls_cert", "tls_key"):
            if store.get(name):
                yield Problem(("store", name), name, "tls = true with it")


def one_use_of_each_port(data: Raw) -> Iterator[Problem]:
    """The listeners do not collide."""
    listen = _table(data, "listen")
    taken = [("mysql", {"host": "127.0.0.1", "port": 3307, **_table(listen, "mysql")})]
    others = [("admin", {"host": "127.0.0.1", "port": 9307, **_table(listen, "admin")})]
    if "redis" in data:
        others.append(("redis", {"host": "127.0.0.1", "port": 6379, **_table(listen, "redis")}))
    for name, one in others:
        for other, two in taken:
            if one["port"] == two["port"] and (
                one["host"] == two["host"] or EVERY_ADDRESS in (one["host"], two["host"])
            ):
                yield Problem(("listen", name, "port"), repr(one["port"]), f"another port than listen.{other}.port")
        taken.append((name, one))


def redis_fits(data: Raw) -> Iterator[Problem]:
    """Passwords of the Redis port and its nodes have one source; a certificate has a key."""
    redis = _table(data, "redis")
    found = [source for source in SOURCES[1:] if source in redis]
    if len(found) > 1:
        yield Problem(("redis", found[1]), "a second password source", f"only {found[0]}")
    elif redis.get("user") and not found:
        yield Problem(("redis", "user"), "no password", "one of " + ", ".join(SOURCES[1:]))
    for name, user in _entries(redis, "users"):
        found = [source for source in SOURCES[1:] if source in user]
        if len(found) != 1:
            yield Problem(("redis", "users", name), " and ".join(found) or "no password", "exactly one password source")
        commands = user.get("commands")
        if isinstance(commands, list) and commands and str(commands[0]).startswith("-"):
            path = ("redis", "users", name, "commands")
            yield Problem(path, f"{commands[0]!r} first, which takes away from nothing", '"+@all" before it')
    if redis.get("tls_ca") and redis.get("tls") != "required":
        yield Problem(("redis", "tls_ca"), repr(redis["tls_ca"]), 'nothing, or redis.tls = "required"')
    ketama = redis.get("placement") == "ketama"
    if not ketama and redis.get("hash_tag"):
        yield Problem(("redis", "hash_tag"), repr(redis["hash_tag"]), 'nothing, or placement = "ketama"')
    yield from _ketama_names(redis, ketama)
    watched: dict[object, str] = {}
    for name, node in _entries(redis, "nodes"):
        known, path = node.get("sentinel_name") or name, ("redis", "nodes", name, "sentinel_name")
        if node.get("sentinel_name") and not redis.get("sentinels"):
            yield Problem(path, repr(known), "nothing, or addresses in redis.sentinels")
        if known in watched and redis.get("sentinels"):
            yield Problem(path, repr(known), f"another name than that of redis.nodes.{watched[known]}")
        watched.setdefault(known, name)
    listen = _table(_table(data, "listen"), "redis")
    cert, key = listen.get("tls_cert") or "", listen.get("tls_key") or ""
    if bool(cert) != bool(key):
        given, missing = ("tls_cert", "tls_key") if cert else ("tls_key", "tls_cert")
        yield Problem(("listen", "redis", missing), "nothing", f"a file, because {given} is given")
    host = listen.get("host", "127.0.0.1")
    if "redis" in data and not _table(redis, "users") and isinstance(host, str) and not _loopback(host):
        yield Problem(("redis", "users"), "nothing", f'a user, or a listen.redis.host on loopback (it is "{host}")')


def _ketama_names(redis: Raw, ketama: bool) -> Iterator[Problem]:
    """With ketama each node names itself: by a wrong guess all keys would be where twemproxy does not find them."""
    seen: dict[object, str] = {}
    for name, node in _entries(redis, "nodes"):
        path, known = ("redis", "nodes", name, "ketama_name"), node.get("ketama_name")
        if not ketama and known:
            yield Problem(path, repr(known), 'nothing, or redis.placement = "ketama"')
        elif ketama and not known:
            yield Problem(path, "nothing", "the node's name in twemproxy's file, or its address there as host:port")
        elif ketama and known in seen:
            yield Problem(path, repr(known), f"another name than that of redis.nodes.{seen[known]}")
        seen.setdefault(known, name)


def cache_fits(data: Raw) -> Iterator[Problem]:
    """Cached rows need nodes, patterns that can be read, tables that exist, and prefixes that do not meet."""
    cache = _table(data, "cache")
    if cache and "redis" not in data:
        yield Problem(("cache",), "no nodes", "a table [redis] with it")
    redis = _table(data, "redis")
    # The keeper, which makes entries void, must find them where workers have put them, and by connections of its own.
    for name, value in (("placement", "ketama"), ("mode", "cache"), ("tls", "required")):
        if cache and redis.get(name) == value:
            yield Problem(("redis", name), f'"{value}"', "another value: not together with [cache] yet")
    if cache and redis.get("sentinels"):
        yield Problem(("redis", "sentinels"), "sentinels", "none: not together with [cache] yet")
    begun: dict[str, str] = {}
    for name, rows in _entries(cache, "rows"):
        path: KeyPath = ("cache", "rows", name)
        key, table = rows.get("key"), rows.get("table")
        if isinstance(key, str):
            wrong = key_problem(key)
            if wrong:
                yield Problem((*path, "key"), f"{key!r}: {wrong}", 'text and {COLUMN}s, such as "users:{uid}"')
            prefix = key.partition("{")[0]
            other = next((old for old in begun if old.startswith(prefix) or prefix.startswith(old)), None)
            if other is not None:
                yield Problem((*path, "key"), repr(key), f"another beginning than that of cache.rows.{begun[other]}")
            begun[prefix] = name
        before, lives = _seconds(rows.get("refresh_before", "0s")), _seconds(rows.get("ttl", "5m"))
        if before is not None and lives is not None and before >= lives:
            yield Problem((*path, "refresh_before"), f"{rows['refresh_before']!r}", "less than ttl")
        yield from _in_keyspace(data, (*path, "table"), table)
    queries = _table(cache, "queries")
    followed = queries.get("tables")
    listed = followed if isinstance(followed, list) else []
    for table in listed:
        yield from _in_keyspace(data, ("cache", "queries", "tables"), table)
    for name, rule in _entries(queries, "rules"):
        path = ("cache", "queries", "rules", name)
        read = rule.get("tables")
        for table in read if isinstance(read, list) else []:
            if table not in listed:
                yield Problem((*path, "tables"), repr(table), "a table of cache.queries.tables")
        if not rule.get("query") and not read:
            yield Problem(path, "neither query nor tables", "one of them: what the rule is for")


def _in_keyspace(data: Raw, path: KeyPath, table: object) -> Iterator[Problem]:
    database = table.partition(".")[0] if isinstance(table, str) else None
    known = _table(data, "keyspaces")
    if database is not None and database not in known:
        yield Problem(path, repr(table), _known(database, known, "keyspace"))


def _seconds(value: object) -> float | None:
    """None when it is no duration, which the models report."""
    try:
        return parse_duration(value)
    except ValueError:
        return None


_COLUMN = re.compile(r"\{([^{}]+)\}")


def key_problem(pattern: str) -> str:
    """What is wrong with a pattern of keys; "" when nothing is."""
    columns = _COLUMN.findall(pattern)
    rest = _COLUMN.sub("\0", pattern)
    if not columns:
        return "no {COLUMN} in it"
    if len(set(columns)) != len(columns):
        return "a column twice"
    if "{" in rest or "}" in rest:
        return "a brace that is of no {COLUMN}"
    if rest.startswith("\0"):
        return "a column at its beginning"
    return "two columns with nothing between them" if "\0\0" in rest else ""


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def one_use_of_each_server(data: Raw) -> Iterator[Problem]:
    """No server stands twice: two shards on one server would answer for each other's rows."""
    seen: dict[Address, str] = {}
    for name, shard in _entries(data, "shards"):
        for tail, address in _servers_of(shard, "primary"):
            if address in seen:
                yield _stands_twice(("shards", name, *tail), address, seen[address])
            else:
                seen[address] = _shown(f"shards.{name}", tail)


def one_use_of_each_redis_node(data: Raw) -> Iterator[Problem]:
    """No Redis server is two nodes, which would find its keys twice, or a replica of another node. With sentinels a
    node may be among its own replicas: they say which one it is."""
    redis = _table(data, "redis")
    seen: dict[Address, str] = {}
    for name, node in _entries(redis, "nodes"):
        for tail, address in _servers_of(node, "address"):
            itself = seen.get(address) == f"redis.nodes.{name}.address"
            if itself and tail[0] == "replicas" and redis.get("sentinels"):
                continue
            if address in seen:
                yield _stands_twice(("redis", "nodes", name, *tail), address, seen[address])
            else:
                seen[address] = _shown(f"redis.nodes.{name}", tail)


def _servers_of(table: Raw, first: str) -> Iterator[tuple[KeyPath, Address]]:
    """The server under the key `first`, and the replicas. Texts that are none are left out."""
    replicas = table.get("replicas")
    places: list[tuple[KeyPath, object]] = [((first,), table.get(first))]
    places += [(("replicas", i), text) for i, text in enumerate(replicas if isinstance(replicas, list) else [])]
    for tail, text in places:
        try:
            yield tail, parse_address(text)
        except ValueError:
            continue


def _stands_twice(path: KeyPath, address: Address, other: str) -> Problem:
    return Problem(path, f'"{address}"', f"a server that stands nowhere else (it is {other} too)")


def _shown(table: str, tail: KeyPath) -> str:
    return f"{table}.{tail[0]}" + (f"[{tail[1]}]" if len(tail) > 1 else "")


def map_fits(data: Raw) -> Iterator[Problem]:
    """A range map has ranges over integers, a hash map has a ring, and neither has the other's table."""
    for name, keyspace in _entries(data, "keyspaces"):
        kind = keyspace.get("map")
        if kind not in ("range", "hash"):
            continue
        wanted, other = ("ranges", "ring") if kind == "range" else ("ring", "ranges")
        if not keyspace.get(wanted):
            yield Problem(("keyspaces", name, wanted), "nothing", f'at least one entry, because map = "{kind}"')
        if other in keyspace:
            yield Problem(("keyspaces", name, other), f"a table {other}", f'none, because map = "{kind}"')
        if kind == "range" and keyspace.get("key_type") in ("text", "binary"):
            yield Problem(
                ("keyspaces", name, "key_type"),
                repr(keyspace["key_type"]),
                '"int", because map = "range" (or map = "hash")',
            )


def shards_exist(data: Raw) -> Iterator[Problem]:
    """Every shard that a keyspace names is defined."""
    known = _table(data, "shards")
    for name, keyspace in _entries(data, "keyspaces"):
        ranges = keyspace.get("ranges")
        places: list[tuple[KeyPath, object]] = [
            (("ranges", i, "shard"), r.get("shard"))
            for i, r in enumerate(ranges if isinstance(ranges, list) else [])
            if isinstance(r, Mapping)
        ]
        places += [(("ring", shard), shard) for shard in _table(keyspace, "ring")]
        places += [(("tables", table, "single"), t.get("single")) for table, t in _entries(keyspace, "tables")]
        for tail, shard in places:
            if isinstance(shard, str) and shard not in known:
                yield Problem(("keyspaces", name, *tail), repr(shard), _known(shard, known, "shard"))


EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  (compared, never bound here)
_LOWEST, _HIGHEST = -(2**64), 2**65


def ranges_are_disjoint(data: Raw) -> Iterator[Problem]:
    """Each range has keys, and no key is in two ranges."""
    for name, keyspace in _entries(data, "keyspaces"):
        ranges = keyspace.get("ranges")
        whole: list[tuple[int, int, int]] = []
        for i, r in enumerate(ranges if isinstance(ranges, list) else []):
            if not isinstance(r, Mapping):
                continue
            path: KeyPath = ("keyspaces", name, "ranges", i)
            if r.get("from") == "max":
                yield Problem((*path, "from"), "'max'", 'an integer key or "min"')
            if r.get("to") == "min":
                yield Problem((*path, "to"), "'min'", 'an integer key or "max"')
            start = _LOWEST if r.get("from") == "min" else r.get("from")
            end = _HIGHEST if r.get("to") == "max" else r.get("to")
            if isinstance(start, int) and isinstance(end, int):
                if start >= end:
                    yield Problem((*path, "to"), f"{end} (with from = {start})", "a key greater than from")
                else:
                    whole.append((start, end, i))
        whole.sort()
        # Against the furthest end so far, not only the neighbour's: [0,100) [10,20) [30,40) has two overlaps.
        furthest = whole[:1]
        for start, end, i in whole[1:]:
            if start < furthest[0][1]:
                other = furthest[0][2]
                later, earlier = max(i, other), min(i, other)
                yield Problem(
                    ("keyspaces", name, "ranges", later),
                    _range_text(ranges, later),
                    f"no key that ranges[{earlier}] has too ({_range_text(ranges, earlier)})",
                )
            if end > furthest[0][1]:
                furthest = [(start, end, i)]


def _range_text(ranges: object, i: int) -> str:
    entry = ranges[i] if isinstance(ranges, list) else {}
    return f"from {entry.get('from')} to {entry.get('to')}"


def one_kind_of_table(data: Raw) -> Iterator[Problem]:
    """A table is sharded, reference or single."""
    for name, keyspace in _entries(data, "keyspaces"):
        for table, settings in _entries(keyspace, "tables"):
            found = [k for k in ("key", "reference", "single") if k in settings and settings[k] is not False]
            if len(found) != 1:
                shown = " and ".join(found) or "none of them"
                yield Problem(
                    ("keyspaces", name, "tables", table),
                    shown,
                    'exactly one of key = "COLUMN", reference = true, single = "SHARD"',
                )


_LONGEST_INDEX = 200  # characters of "table(column,column)": the bookkeeping table's limit


def lookups_fit(data: Raw) -> Iterator[Problem]:
    """Lookup indexes are of sharded tables, over columns other than the key, each once."""
    for name, keyspace in _entries(data, "keyspaces"):
        for table, settings in _entries(keyspace, "tables"):
            lookups = settings.get("lookups")
            if not lookups or not isinstance(lookups, list):
                continue
            path: KeyPath = ("keyspaces", name, "tables", table, "lookups")
            key = settings.get("key")
            if not isinstance(key, str):
                yield Problem(path, "lookups", 'none, because the table has no key = "COLUMN"')
                continue
            seen: set[tuple[str, ...]] = set()
            for i, entry in enumerate(lookups):
                if not isinstance(entry, str):
                    continue
                columns = tuple(part.strip() for part in entry.lower().split(","))
                where: KeyPath = (*path, i)
                if not all(columns) or len(set(columns)) != len(columns):
                    yield Problem(where, repr(entry), 'a column, or different ones: "tenant, name"')
                elif key.lower() in columns:
                    yield Problem(where, repr(entry), f"no key column {key}: each shard keeps it unique by itself")
                elif tuple(sorted(columns)) in seen:
                    yield Problem(where, repr(entry), "each unique key once")
                elif len(table) + len(entry) + 2 > _LONGEST_INDEX:
                    yield Problem(where, repr(entry), f"at most {_LONGEST_INDEX} characters with the table's name")
                seen.add(tuple(sorted(columns)))


RULES: tuple[Callable[[Raw], Iterator[Problem]], ...] = (
    one_password_source,
    user_keyspaces,
    tls_files,
    rebalance_has_a_password,
    store_fits,
    one_use_of_each_port,
    redis_fits,
    cache_fits,
    one_use_of_each_server,
    one_use_of_each_redis_node,
    map_fits,
    shards_exist,
    ranges_are_disjoint,
    one_kind_of_table,
    lookups_fit,
)
