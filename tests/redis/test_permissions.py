"""Users' rules: what they allow is what a real server's ACL allows, and the proxy holds to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardproxy.local import LocalCluster
from shardproxy.planner.redis.categories import CATEGORIES, CATEGORIES_OF
from shardproxy.planner.redis.permissions import Permissions, UserRules, allowed_names
from shardproxy.planner.redis.spec import find_spec
from shardproxy.planner.redis.table import ALL, CONTAINERS
from shardproxy.protocol.redis.encode import command
from tests.redis.kinds import Kind, kinds_of_nodes
from tests.redis.proxied import RedisProxy, redis_proxy


class Server:
    """A server, and what it says of its commands: categories, and how many arguments they have at least."""

    def __init__(self, kind: Kind, client: Any) -> None:
        self.kind = kind
        self.client = client
        told = list(_told(client.execute_command("COMMAND")))
        self.categories = {name: categories for name, categories, _ in told}
        self.least = {name: least for name, _, least in told}


def _told(replies: Any) -> Iterator[tuple[bytes, frozenset[str], int]]:
    for reply in replies:
        yield reply[0].upper(), frozenset(name.decode().removeprefix("@") for name in reply[6]), abs(reply[1])
        yield from _told(reply[9] if len(reply) > 9 else ())


@pytest.fixture(scope="module", params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with kinds_of_nodes(request.param, 1) as nodes, nodes[0].connect(protocol=2) as client:
        client.response_callbacks.clear()
        yield Server(request.param, client)


@pytest.fixture(scope="module")
def first() -> Iterator[Server]:
    """A Redis 7.0, whose words are ours."""
    with kinds_of_nodes("redis", 1) as nodes, nodes[0].connect(protocol=2) as client:
        client.response_callbacks.clear()
        yield Server("redis", client)


def test_categories_are_the_servers(server: Server, first: Server) -> None:
    assert CATEGORIES_OF.keys() == {spec.name for spec in ALL}
    ours = {name: CATEGORIES_OF[name] for name in server.categories if name in CATEGORIES_OF}
    theirs = {
        name: categories
        for name, categories in server.categories.items()
        if server.kind == "redis" or name not in first.categories  # where two differ, the first counts
    }
    assert {name: ours[name] for name in theirs} == theirs
    told = {name.decode() for name in server.client.execute_command("ACL", "CAT")}
    assert told == CATEGORIES if server.kind == "redis" else told >= CATEGORIES


_COMMANDS = [spec for spec in ALL if spec.name not in CONTAINERS]
_RULES = st.lists(
    st.tuples(
        st.sampled_from("+-"),
        st.one_of(
            st.sampled_from(["@all", *(f"@{category}" for category in sorted(CATEGORIES))]),
            st.sampled_from(sorted(name.decode().lower() for name in CONTAINERS)),
            st.sampled_from(sorted(spec.name.decode() for spec in ALL)),
        ),
    ).map("".join),
    max_size=6,
)


def _server_allows(server: Server, rules: Sequence[str], commands: Sequence[Sequence[bytes]]) -> list[Any]:
    """What ACL DRYRUN says to each command, for a user with these rules of ACL SETUSER."""
    server.client.execute_command("ACL", "SETUSER", "probe", "reset", *rules)
    with server.client.pipeline(transaction=False) as pipe:
        for words in commands:
            pipe.execute_command("ACL", "DRYRUN", "probe", *words)
        found: list[Any] = pipe.execute(raise_on_error=False)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_RULES)
def test_rules_of_commands_allow_what_the_server_allows(first: Server, rules: list[str]) -> None:
    rules = [rule for rule in rules if rule[1] == "@" or rule[1:].upper().encode() in first.categories]
    specs = [spec for spec in _COMMANDS if spec.name in first.categories]
    commands = []
    for spec in specs:
        words = spec.name.split(b"|")
        commands.append(words + [b"1"] * (first.least[spec.name] - len(words)))
    said = _server_allows(first, ["~*", "&*", *rules], commands)
    permissions = Permissions(UserRules(commands=rules, scripts=True))
    for spec, words, reply in zip(specs, commands, said, strict=True):
        assert reply == b"OK" or b"no permissions to run" in reply, (words, reply)
        denial = permissions.denial(spec, words)
        assert (denial == b"") == (reply == b"OK"), (rules, words)
        if denial:
            assert denial[:1] + b"NOPERM t" + reply[1:] + b"\r\n" == b"-NOPERM t" + denial[len(b"-NOPERM t") :]


_SPECIAL = r"* * ? [ab] [^a] [a-c] [c-a] \* \ [ ] [] [^] [a [\]] a: -"
_PIECES = st.sampled_from([*"abc", *_SPECIAL.split()])
_GLOBS = st.lists(_PIECES, min_size=1, max_size=6).map("".join).filter(lambda text: text != "\\")
_TEXTS = st.lists(st.sampled_from(list("abcz*?[]\\-:^")), min_size=0, max_size=6).map(
    lambda found: "".join(found).encode()
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_GLOBS, max_size=3), st.lists(_TEXTS, min_size=1, max_size=20))
def test_patterns_match_what_the_server_matches(first: Server, globs: list[str], texts: list[bytes]) -> None:
    globs = sorted(dict.fromkeys(globs), key="*".__eq__)  # nothing may come behind it
    said = _server_allows(first, ["+@all", *(f"~{glob}" for glob in globs)], [[b"GET", text] for text in texts])
    permissions = Permissions(UserRules(keys=globs))
    spec = find_spec([b"GET"])
    assert spec is not None
    for text, reply in zip(texts, said, strict=True):
        assert (permissions.denial(spec, [b"GET", text]) == b"") == (reply == b"OK"), (globs, text)


_WORDS = st.sampled_from(b"a1 a2 b1 ch1 0 1 2 STORE BY GET # LIMIT w_* STREAMS COUNT a* ch* m".split())
_NAMED = [
    "GET", "MGET", "MSET", "RENAME", "COPY", "SORT", "SORT_RO", "EVAL", "ZUNIONSTORE", "ZINTER", "XREAD", "GEORADIUS",
    "BLPOP", "PUBLISH", "SPUBLISH", "SUBSCRIBE", "SSUBSCRIBE", "PSUBSCRIBE", "UNSUBSCRIBE", "SUNSUBSCRIBE", "KEYS",
    "SCAN", "DBSIZE", "FLUSHALL", "WATCH", "OBJECT|ENCODING", "XGROUP|CREATE", "MEMORY|USAGE", "PING",
]  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(_NAMED), st.lists(_WORDS, max_size=8))
def test_rules_of_keys_and_channels_forbid_what_the_server_forbids(
    first: Server, name: str, words: list[bytes]
) -> None:
    args = [*name.encode().split(b"|"), *words]
    spec = find_spec(args)
    assert spec is not None
    [reply] = _server_allows(first, ["+@all", "~a*", "~w_1", "&ch*"], [args])
    rules = UserRules(commands=["+@all"], keys=["a*", "w_1"], channels=["ch*"], scripts=True)
    denial = Permissions(rules).denial(spec, args)
    if isinstance(reply, redis.ResponseError):  # too few arguments, or keys that cannot be found: the node says so
        return
    if reply != b"OK" and not denial:  # in commands that are not well formed, the server sees keys where we see none …
        assert _fails(first, args), args  # … and does not do them
    elif reply != b"OK":
        assert denial.startswith(b"-NOPERM") and (b"channel" in reply) == (b"channel" in denial), (args, reply)
    elif denial == _NO_KEYS:  # … or we where the server sees none
        assert name == "GEORADIUS" or _fails(first, [b"COMMAND", b"GETKEYS", *args]), args
    else:
        assert denial == b"" or b"option of SORT denied" in denial, args


_NO_KEYS = b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"


def _fails(server: Server, args: list[bytes]) -> bool:
    try:
        server.client.execute_command(*args)
    except redis.ResponseError:
        return True
    return False


def test_what_does_not_exist() -> None:
    for rule in ("+nosuch", "-@nosuch", "+config|nosuch", "get", "*get"):
        with pytest.raises(ValueError, match="no command or category"):
            allowed_names([rule])


def test_scripts_need_a_word_of_their_own() -> None:
    spec = find_spec([b"EVAL"])
    assert spec is not None
    args = [b"EVAL", b"return 1", b"1", b"a"]
    assert b"no rule binds a script" in Permissions(UserRules(keys=["a"])).denial(spec, args)
    assert Permissions(UserRules(keys=["a"], scripts=True)).denial(spec, args) == b""
    assert b"one of the keys" in Permissions(UserRules(keys=["b"], scripts=True)).denial(spec, args)


USERS: dict[str, dict[str, object]] = {
    "default": {"password": "word"},
    "reader": {"password": "r", "commands": ["+@read", "+ping", "+hello", "-keys", "+acl|whoami"]},
    "app": {"password": "a", "keys": ["app:*", "x[12]"], "channels": ["news"]},
    "tight": {
        "password": "t",
        "keys": ["app:*"],
        "commands": ["+get", "+set", "+mset", "+sort", "+scan"],
        "scripts": True,
    },
}


@pytest.fixture(scope="module")
def proxy() -> Iterator[RedisProxy]:
    with (
        LocalCluster("mariadb", shards=1, replicas=0, redis=3) as cluster,
        redis_proxy(cluster, users=USERS) as running,
    ):
        yield running


def _say(proxy: RedisProxy, *texts: str, size: int = 1000) -> list[bytes]:
    """The lines of the replies to commands that come in one piece; the last is QUIT."""
    with proxy.raw() as sock:
        sock.sendall(b"".join(command(text.encode().split()) for text in (*texts, "QUIT")))
        found = bytearray()
        while data := sock.recv(65536):
            found += data
    return bytes(found).split(b"\r\n")[:-2]


NO_KEY = b"-NOPERM this user has no permissions to access one of the keys used as arguments"


def no_run(name: str) -> bytes:
    return b"-NOPERM this user has no permissions to run the '%b' command" % name.encode()


def test_the_proxy_holds_users_to_their_rules(proxy: RedisProxy) -> None:
    assert _say(
        proxy, "AUTH reader r", "GET k", "SET k v", "Set k v", "MSET k v j w", "FLUSHALL", "KEYS *", "EXISTS k j",
    ) == [
        b"+OK", b"$-1", no_run("set"), no_run("set"), no_run("mset"), no_run("flushall"), no_run("keys"), b":0",
    ]  # fmt: skip
    assert _say(
        proxy, "AUTH app a", "SET app:1 v", "GET app:1", "set other v", "SET x1 v", "SET x3 v", "MGET app:1 x1",
        "MGET app:1 k", "DEL app:1 x1 x2", "PUBLISH news t", "PUBLISH other t", "FLUSHALL", "SCAN 0",
        "EVAL return(1) 1 app:1",
    ) == [
        b"+OK", b"+OK", b"$1", b"v", NO_KEY, b"+OK", NO_KEY, b"*2", b"$1", b"v", b"$1", b"v", NO_KEY,
        b":2", b":0", NO_KEY.replace(b"keys", b"channels"), no_run("flushall"), no_run("scan"),
        no_run("eval") + b": no rule binds a script, see scripts in redis.users",
    ]  # fmt: skip
    assert _say(proxy, "AUTH tight t", "SORT app:l BY w_*", "SORT app:l", "SET b v", "INCR app:1") == [
        b"+OK", b"-ERR BY option of SORT denied due to insufficient ACL permissions.", b"*0", NO_KEY, no_run("incr"),
    ]  # fmt: skip


def test_rules_change_with_the_user(proxy: RedisProxy) -> None:
    assert _say(
        proxy, "GET k", "AUTH word", "SET k v", "AUTH reader r", "SET k w", "GET k", "AUTH default word", "DEL k",
        "AUTH app a", "RESET", "SET app:1 v",
    ) == [
        b"-NOAUTH Authentication required.", b"+OK", b"+OK", b"+OK", no_run("set"), b"$1", b"v", b"+OK", b":1",
        b"+OK", b"+RESET", b"-NOAUTH Authentication required.",
    ]  # fmt: skip


def test_rules_hold_behind_multi_and_for_what_has_a_connection_of_its_own(proxy: RedisProxy) -> None:
    exec_abort = b"-EXECABORT Transaction discarded because of previous errors."
    assert _say(proxy, "AUTH app a", "MULTI", "SET app:1 v", "SET other v", "EXEC", "EXISTS app:1 x1") == [
        b"+OK", b"+OK", b"+QUEUED", NO_KEY, exec_abort, b":0",
    ]  # fmt: skip
    assert _say(proxy, "AUTH app a", "MULTI", "FLUSHALL", "EXEC", "WATCH other", "BLPOP other 1", "WATCH app:1") == [
        b"+OK", b"+OK", no_run("flushall"), exec_abort, NO_KEY, NO_KEY, b"+OK",
    ]  # fmt: skip
    no_channel = NO_KEY.replace(b"keys", b"channels")
    assert _say(proxy, "AUTH app a", "SUBSCRIBE other", "PSUBSCRIBE n*", "SSUBSCRIBE x", "MONITOR") == [
        b"+OK", no_channel, no_channel, no_channel, no_run("monitor"),
    ]  # fmt: skip


def test_redis_py_with_rules(proxy: RedisProxy) -> None:
    for protocol in (2, 3):
        with proxy.connect(username="app", password="a", protocol=protocol) as client:
            assert client.set("app:k", "v") is True
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("other")
