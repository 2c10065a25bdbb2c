"""One bad file, every problem: what `load` says and what it never says."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.config import Address, Config, HashKind, PasswordHash, load, parse
from shardproxy.errors import ConfigError

GOOD = """
[backend]
user = "proxy"
password = "backend-secret"

[users.app]
password = "app-secret"

[shards.a]
primary = "10.0.0.1:3306"
replicas = ["10.0.0.2:3306"]

[shards.b]
primary = "[fd00::1]:3306"

[keyspaces.main]
key_type = "int"
map = "range"
[[keyspaces.main.ranges]]
from = "min"
to = 100
shard = "a"
[[keyspaces.main.ranges]]
from = 100
to = "max"
shard = "b"
[keyspaces.main.tables]
users = { key = "uid" }
countries = { reference = true }
settings = { single = "a" }
"""


def good() -> dict[str, Any]:
    return tomllib.loads(GOOD)


def problems(data: dict[str, Any]) -> list[str]:
    """The lines of the error, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(data, "f.toml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("f.toml: ") for line in lines)
    return [line.removeprefix("f.toml: ") for line in lines]


def test_the_good_file_has_the_agreed_defaults_and_types() -> None:
    config = parse(good())
    assert (config.listen.mysql.host, config.listen.mysql.port) == ("127.0.0.1", 3307)
    assert (config.listen.admin.host, config.listen.admin.port) == ("127.0.0.1", 9307)
    assert config.proxy.workers == 2
    assert config.proxy.max_packet == 64 * 1024 * 1024
    assert config.proxy.idle_timeout == 8 * 3600.0
    assert config.proxy.drain_timeout == 30.0
    assert config.backend.pool_size == 32
    assert (config.backend.shared_connections, config.backend.shared_depth) == (2, 16)
    assert config.users["app"].reads == "replica"
    assert config.shards["a"].primary == Address("10.0.0.1", 3306)
    assert config.shards["a"].replicas == (Address("10.0.0.2", 3306),)
    assert str(config.shards["b"].primary) == "[fd00::1]:3306"
    first, last = config.keyspaces["main"].ranges
    assert (first.start, first.end, last.start, last.end) == (None, 100, 100, None)
    assert config.keyspaces["main"].shard_names == ("a", "b")


def test_durations_and_sizes_are_parsed() -> None:
    data = good()
    data["backend"]["pool_wait"] = "250ms"
    data["proxy"] = {"max_packet": "16KiB", "drain_timeout": "0s", "idle_timeout": "1.5h"}
    config = parse(data)
    assert config.backend.pool_wait == 0.25
    assert config.proxy.max_packet == 16384
    assert config.proxy.drain_timeout == 0.0
    assert config.proxy.idle_timeout == 5400.0


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda d: d["backend"].update(pool_sise=3),
            'backend.pool_sise: found an unknown key; expected "pool_size"?',
        ),
        (lambda d: d.update(shard={}), 'shard: found an unknown key; expected "shards"?'),
        (lambda d: d.update(proxy={"workers": "2"}), 'proxy.workers: found "2"; expected an integer'),
        (lambda d: d.update(proxy={"workers": True}), "proxy.workers: found true; expected an integer"),
        (lambda d: d.update(proxy={"workers": 0}), "proxy.workers: found 0; expected greater than or equal to 1"),
        (lambda d: d.update(proxy={"idle_timeout": "5"}), 'proxy.idle_timeout: found "5"; expected a duration'),
        (lambda d: d.update(proxy={"idle_timeout": 5.0}), "proxy.idle_timeout: found 5.0; expected a duration"),
        (lambda d: d.update(proxy={"idle_timeout": "0s"}), 'proxy.idle_timeout: found "0s"; expected greater than 0'),
        (lambda d: d.update(proxy={"max_packet": "64MB"}), 'proxy.max_packet: found "64MB"; expected a size'),
        (lambda d: d.update(proxy={"log_format": "xml"}), "proxy.log_format: found \"xml\"; expected 'json' or 'text'"),
        (lambda d: d.pop("users"), "users: found nothing; expected Who may connect"),
        (lambda d: d.update(users={}), "users: found an empty table; expected at least one entry"),
        (lambda d: d["shards"]["a"].update(primary="db1"), 'shards.a.primary: found "db1"; expected "host:port"'),
        (lambda d: d["shards"]["a"].update(primary="::1:3306"), 'shards.a.primary: found "::1:3306"; expected'),
        (lambda d: d["shards"]["a"].update(primary="h:0"), 'shards.a.primary: found "h:0"; expected'),
        (
            lambda d: d["shards"]["b"].update(replicas=["10.0.0.1:3306"]),
            'shards.b.replicas[0]: found "10.0.0.1:3306"; expected a server that stands nowhere else '
            "(it is shards.a.primary too)",
        ),
        (lambda d: d["shards"].update({"x/y": {"primary": "h:1"}}), "shards.\"x/y\": found the name 'x/y'"),
        (
            lambda d: d["keyspaces"]["main"]["ranges"][1].update(to="huge"),
            'keyspaces.main.ranges[1].to: found "huge"; expected an integer key',
        ),
        (
            lambda d: d["keyspaces"]["main"]["ranges"][1].update({"from": "max"}),
            "keyspaces.main.ranges[1].from: found 'max'; expected an integer key or \"min\"",
        ),
        (
            lambda d: d["keyspaces"]["main"]["ranges"][1].update({"from": 100, "to": 100}),
            "keyspaces.main.ranges[1].to: found 100 (with from = 100); expected a key greater than from",
        ),
        (
            lambda d: d["keyspaces"]["main"]["ranges"][1].update({"from": 99}),
            "keyspaces.main.ranges[1]: found from 99 to max; expected no key that ranges[0] has too (from min to 100)",
        ),
        (
            lambda d: d["keyspaces"]["main"]["ranges"][1].update(shard="bb"),
            "keyspaces.main.ranges[1].shard: found 'bb'; expected the name of a shard",
        ),
        (
            lambda d: d["keyspaces"]["main"].update(ring={"a": 1}),
            'keyspaces.main.ring: found a table ring; expected none, because map = "range"',
        ),
        (
            lambda d: d["keyspaces"]["main"].update(map="hash"),
            'keyspaces.main.ring: found nothing; expected at least one entry, because map = "hash"',
        ),
        (
            lambda d: d["keyspaces"]["main"].update(key_type="text"),
            'keyspaces.main.key_type: found \'text\'; expected "int", because map = "range"',
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={}),
            "keyspaces.main.tables.users: found none of them; expected exactly one of",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"reference": False}),
            "keyspaces.main.tables.users: found none of them; expected exactly one of",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"key": "uid", "single": "a"}),
            "keyspaces.main.tables.users: found key and single; expected exactly one of",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"reference": True, "lookups": ["name"]}),
            "keyspaces.main.tables.users.lookups: found lookups; expected none, because the table has no key",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"key": "uid", "lookups": ["name", "x, Uid"]}),
            "keyspaces.main.tables.users.lookups[1]: found 'x, Uid'; expected no key column uid",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"key": "uid", "lookups": ["a, b", "B,A"]}),
            "keyspaces.main.tables.users.lookups[1]: found 'B,A'; expected each unique key once",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"key": "uid", "lookups": ["a,"]}),
            "keyspaces.main.tables.users.lookups[0]: found 'a,'; expected a column, or different ones",
        ),
        (
            lambda d: d["keyspaces"]["main"]["tables"].update(users={"single": "c"}),
            "keyspaces.main.tables.users.single: found 'c'; expected the name of a shard",
        ),
        (lambda d: d["keyspaces"].update(mysql=d["keyspaces"]["main"]), "keyspaces.mysql: found the name 'mysql'"),
        (
            lambda d: d["keyspaces"].update(_shardproxy=d["keyspaces"]["main"]),
            "keyspaces._shardproxy: found the name '_shardproxy'",
        ),
        (lambda d: d["users"].update(x={}), "users.x: found no password; expected exactly one of password_hash,"),
        (
            lambda d: d["users"]["app"].update(password_env="P"),
            "users.app: found password and password_env; expected exactly one of",
        ),
        (
            lambda d: d["backend"].pop("password"),
            "backend: found no password; expected exactly one of password, password_env, password_file",
        ),
        (
            lambda d: d["backend"].update(password_hash="*" + 40 * "0"),
            "backend.password_hash: found an unknown key",
        ),
        (
            lambda d: d["users"]["app"].update(keyspaces=["mian"]),
            "users.app.keyspaces[0]: found 'mian'; expected the name of a keyspace (did you mean \"main\"?)",
        ),
        (
            lambda d: d["users"]["app"].update(default_keyspace="other"),
            "users.app.default_keyspace: found 'other'; expected the name of a keyspace",
        ),
        (
            lambda d: d.update(listen={"mysql": {"tls_cert": "c.pem"}}),
            "listen.mysql.tls_key: found nothing; expected a file, because tls_cert is given",
        ),
        (
            lambda d: d.update(listen={"mysql": {"require_tls": True}}),
            "listen.mysql.require_tls: found true; expected tls_cert and tls_key with it",
        ),
        (
            lambda d: d.update(store={"endpoints": ["h:1"]}),
            'store.endpoints: found endpoints; expected kind = "etcd" with it',
        ),
        (
            lambda d: d.update(store={"kind": "etcd"}),
            'store.endpoints: found nothing; expected at least one "host:port", because kind = "etcd"',
        ),
        (
            lambda d: d.update(store={"kind": "etcd", "endpoints": ["h:1"], "path": "x"}),
            'store.path: found path; expected kind = "embedded" with it',
        ),
        (
            lambda d: d.update(store={"kind": "etcd", "endpoints": ["h:1"], "user": "u"}),
            "store: found no password; expected exactly one of password, password_env, password_file",
        ),
        (
            lambda d: d.update(store={"kind": "etcd", "endpoints": ["h:1"], "password": "x"}),
            "store.password: found a password; expected user with it",
        ),
        (
            lambda d: d.update(store={"kind": "etcd", "endpoints": ["h:1"], "tls": True, "tls_key": "k.pem"}),
            "store.tls_cert: found nothing; expected a file, because tls_key is given",
        ),
        (
            lambda d: d.update(store={"kind": "etcd", "endpoints": ["h:1"], "tls_ca": "ca.pem"}),
            "store.tls_ca: found tls_ca; expected tls = true with it",
        ),
        (
            lambda d: d.update(listen={"admin": {"port": 3307}}),
            "listen.admin.port: found 3307; expected another port than listen.mysql.port",
        ),
    ],
)
def test_each_mistake_is_told_with_path_found_and_expected(change: Change, line: str) -> None:
    data = good()
    change(data)
    told = problems(data)
    assert any(p.startswith(line) for p in told), told


def test_all_problems_come_at_once_whatever_their_kind() -> None:
    data = good()
    data["proxy"] = {"workers": "two"}
    data["backend"]["pool_sise"] = 1
    data["shards"]["a"]["primary"] = 3306
    data["keyspaces"]["main"]["ranges"][0]["shard"] = "zz"
    data["users"]["x"] = {}
    del data["keyspaces"]["main"]["key_type"]
    paths = {p.split(": ")[0] for p in problems(data)}
    assert paths == {
        "proxy.workers",
        "backend.pool_sise",
        "shards.a.primary",
        "keyspaces.main.ranges[0].shard",
        "users.x",
        "keyspaces.main.key_type",
    }


def test_a_range_inside_another_is_found_beyond_its_neighbour() -> None:
    data = good()
    data["keyspaces"]["main"]["ranges"] = [
        {"from": 0, "to": 100, "shard": "a"},
        {"from": 10, "to": 20, "shard": "b"},
        {"from": 30, "to": 40, "shard": "b"},
    ]
    assert [p.split(": ")[0] for p in problems(data)] == ["keyspaces.main.ranges[1]", "keyspaces.main.ranges[2]"]


SECRET = "tiger-in-a-tank"


NODE = {"nodes": {"r1": {"address": "10.0.0.9:6379"}}}
KETAMA: dict[str, Any] = {
    "placement": "ketama",
    "nodes": {"r1": {"address": "10.0.0.9:6379", "ketama_name": "one"}},
}


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"redis": {"nodes": {}}}, "redis.nodes: found an empty table; expected at least one entry"),
        ({"redis": {**NODE, "placement": "modula"}}, 'redis.placement: found "modula"; expected'),
        (
            {"redis": {**NODE, "placement": "ketama"}},
            "redis.nodes.r1.ketama_name: found nothing; expected the node's name",
        ),
        ({"redis": {**NODE, "tls_ca": "ca.pem"}}, "redis.tls_ca: found 'ca.pem'; expected nothing, or redis.tls = "),
        (
            {"redis": {"nodes": {"r1": {"address": "10.0.0.9:6379", "sentinel_name": "main"}}}},
            "redis.nodes.r1.sentinel_name: found 'main'; expected nothing, or addresses in redis.sentinels",
        ),
        (
            {
                "redis": {
                    "sentinels": ["10.0.0.8:26379"],
                    "nodes": {
                        "r1": {"address": "10.0.0.9:6379", "sentinel_name": "r2"},
                        "r2": {"address": "10.0.0.10:6379"},
                    },
                }
            },
            "redis.nodes.r2.sentinel_name: found 'r2'; expected another name than that of redis.nodes.r1",
        ),
        (
            {"redis": {"nodes": {"r1": {"address": "10.0.0.9:1"}, "r2": {"address": "10.0.0.9:1"}}}},
            'redis.nodes.r2.address: found "10.0.0.9:1"; expected a server that stands nowhere else (it is ',
        ),
        (
            {"redis": {"nodes": {"r1": {"address": "10.0.0.9:1", "replicas": ["10.0.0.9:1"]}}}},
            'redis.nodes.r1.replicas[0]: found "10.0.0.9:1"; expected a server that stands nowhere else',
        ),
        (
            {
                "redis": {
                    "sentinels": ["10.0.0.8:26379"],
                    "nodes": {
                        "r1": {"address": "10.0.0.9:1", "replicas": ["10.0.0.9:1", "10.0.0.9:2"]},
                        "r2": {"address": "10.0.0.9:3", "replicas": ["10.0.0.9:2"]},
                    },
                }
            },
            'redis.nodes.r2.replicas[0]: found "10.0.0.9:2"; expected a server that stands nowhere else',
        ),
        ({"redis": {**NODE, "hash_tag": "{}"}}, "redis.hash_tag: found '{}'; expected nothing, or placement = "),
        ({"redis": {**KETAMA, "hash_tag": "{"}}, "redis.hash_tag: found "),
        ({"redis": {"nodes": KETAMA["nodes"]}}, "redis.nodes.r1.ketama_name: found 'one'; expected nothing, or"),
        (
            {
                "redis": {
                    **KETAMA,
                    "nodes": {**KETAMA["nodes"], "r2": {"address": "10.0.0.8:6379", "ketama_name": "one"}},
                }
            },
            "redis.nodes.r2.ketama_name: found 'one'; expected another name than that of redis.nodes.r1",
        ),
        ({"redis": {**NODE, "user": "proxy"}}, "redis.user: found no password; expected one of"),
        ({"redis": {**NODE, "password": "a", "password_env": "B"}}, "redis.password_env: found a second"),
        ({"redis": {**NODE, "users": {"app": {}}}}, "redis.users.app: found no password; expected exactly one"),
        (
            {"redis": {**NODE, "users": {"app": {"password": "a", "commands": ["-flushall"]}}}},
            "redis.users.app.commands: found '-flushall' first, which takes away from nothing; expected",
        ),
        (
            {"redis": {**NODE, "users": {"app": {"password": "a", "commands": ["get"]}}}},
            'redis.users.app.commands[0]: found "get"',
        ),
        ({"redis": {**NODE, "users": {"app": {"password": "a", "keys": ["~a*"]}}}}, "redis.users.app.keys[0]: found "),
        (
            {"redis": NODE, "listen": {"redis": {"host": "0.0.0.0"}}},
            'redis.users: found nothing; expected a user, or a listen.redis.host on loopback (it is "0.0.0.0")',
        ),
        ({"redis": NODE, "listen": {"redis": {"port": 3307}}}, "listen.redis.port: found 3307; expected another port"),
        ({"redis": NODE, "listen": {"redis": {"tls_cert": "c"}}}, "listen.redis.tls_key: found nothing; expected"),
    ],
)
def test_mistakes_of_the_redis_port(tables: dict[str, Any], told: str) -> None:
    [problem] = problems({**good(), **tables})
    assert told in problem


@pytest.mark.parametrize(
    ("redis", "told"),
    [
        ({**NODE, "mode": "cache"}, 'redis.mode: found "cache"; expected another value: not together with [cache] yet'),
        (KETAMA, 'redis.placement: found "ketama"; expected another value'),
        ({**NODE, "tls": "required"}, 'redis.tls: found "required"; expected another value'),
        ({**NODE, "sentinels": ["10.0.0.8:26379"]}, "redis.sentinels: found sentinels; expected none"),
    ],
)
def test_what_cached_rows_do_not_go_with(redis: dict[str, Any], told: str) -> None:
    cache = {"rows": {"users": {"key": "users:{uid}", "table": "main.users"}}}
    assert parse({**good(), "redis": NODE, "cache": cache}).cache is not None
    [problem] = problems({**good(), "redis": redis, "cache": cache})
    assert told in problem


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"ttl": "10s", "refresh_before": "9s", "stale_for": "1m"}, ""),
        ({"refresh_before": "299s"}, ""),
        ({"refresh_before": "5m"}, "cache.rows.users.refresh_before: found '5m'; expected less than ttl"),
        ({"ttl": "1s", "refresh_before": "1500ms"}, "refresh_before: found '1500ms'; expected less than ttl"),
        ({"ttl": "1s", "refresh_before": "some"}, 'refresh_before: found "some"; expected a duration'),
        ({"ttl": "1", "refresh_before": "1s"}, 'ttl: found "1"; expected a duration'),
    ],
)
def test_rows_are_loaded_anew_before_their_end(more: dict[str, str], told: str) -> None:
    cache = {"rows": {"users": {"key": "users:{uid}", "table": "main.users", **more}}}
    data = {**good(), "redis": NODE, "cache": cache}
    if told:
        [problem] = problems(data)
        assert told in problem
    else:
        assert parse(data).cache is not None


READ = {"r1": {"address": "10.0.0.9:6379", "replicas": ["10.0.0.8:6379"]}}


@pytest.mark.parametrize(
    ("redis", "read"),
    [
        ({"nodes": READ, "users": {"app": {"password": "x"}}}, {}),
        ({**NODE, "users": {"app": {"password": "x", "reads": "replica"}}}, {}),
        ({"nodes": READ, "users": {"app": {"password": "x", "reads": "replica"}}}, {"r1": ["10.0.0.8:6379"]}),
    ],
)
def test_which_replicas_are_read(redis: dict[str, Any], read: dict[str, list[str]]) -> None:
    settings = parse({**good(), "redis": redis}).redis
    assert settings is not None
    assert settings.replicas_read == read


def test_a_redis_port_for_everybody_is_on_loopback() -> None:
    assert parse({**good(), "redis": NODE}).redis is not None
    users = {"users": {"default": {"password": "secret"}}}
    assert parse({**good(), "redis": {**NODE, **users}, "listen": {"redis": {"host": "0.0.0.0"}}}).redis is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["users"]["app"].update(password_hash=SECRET),
        lambda d: d["users"]["app"].update(password=[SECRET]),
        lambda d: d["users"]["app"].update(pasword=SECRET),
        lambda d: d["backend"].update(password={"is": SECRET}),
        lambda d: d["backend"].update(password_env="", password=SECRET),
    ],
)
def test_a_problem_never_shows_a_secret(change: Change) -> None:
    data = good()
    change(data)
    assert SECRET not in "\n".join(problems(data))


def test_a_config_never_prints_a_secret() -> None:
    data = good()
    data["users"]["hashed"] = {"password_hash": "*" + "AB" * 20}
    config = parse(data)
    shown = repr(config) + str(config) + config.model_dump_json()
    for secret in ("backend-secret", "app-secret", "AB" * 20, "\\xab\\xab"):
        assert secret not in shown


def test_passwords_come_from_variables_and_files_when_asked_for(tmp_path: Path) -> None:
    data = good()
    data["backend"] = {"user": "proxy", "password_env": "BACKEND"}
    data["users"]["app"] = {"password_file": "app.password"}
    config = parse(data, "f.toml", tmp_path, {"BACKEND": "from-env", "OTHER": "x"})
    assert config.backend_password() == "from-env"
    (tmp_path / "app.password").write_text("from-file\n")
    assert config.user_secret("app") == "from-file"


def test_a_missing_variable_or_file_is_told_only_when_asked_for(tmp_path: Path) -> None:
    data = good()
    data["backend"] = {"user": "proxy", "password_env": "BACKEND"}
    data["users"]["app"] = {"password_file": "app.password"}
    config = parse(data, "f.toml", tmp_path)
    with pytest.raises(ConfigError, match=r"f\.toml: backend\.password_env: found the name 'BACKEND', but no such env"):
        config.backend_password()
    with pytest.raises(ConfigError, match=r"users\.app\.password_file: found '.*app\.password', which cannot be read"):
        config.user_secret("app")
    for content, why in ((b"", "is empty"), (b"a\nb\n", "more than one line"), (b"\xff", "not UTF-8")):
        (tmp_path / "app.password").write_bytes(content)
        with pytest.raises(ConfigError, match=why):
            config.user_secret("app")


def test_hashes_are_parsed_in_all_written_forms() -> None:
    raw = b"$A$005$" + bytes(range(1, 21)) + b"x" * 43
    more_rounds = raw.replace(b"005", b"00A")
    native = "*" + "0a" * 20
    for text, want in (
        (native, PasswordHash(HashKind.NATIVE, b"\x0a" * 20)),
        (native.upper(), PasswordHash(HashKind.NATIVE, b"\x0a" * 20)),
        (raw.decode(), PasswordHash(HashKind.SHA2, raw)),
        ("0x" + raw.hex(), PasswordHash(HashKind.SHA2, raw)),
        (raw.hex().upper(), PasswordHash(HashKind.SHA2, raw)),
        ("0x" + more_rounds.hex(), PasswordHash(HashKind.SHA2, more_rounds)),
    ):
        data = good()
        data["users"]["app"] = {"password_hash": text}
        secret = parse(data).user_secret("app")
        assert secret == want
        assert isinstance(secret, PasswordHash)
        data["users"]["app"] = {"password_hash": secret.text}
        assert parse(data).user_secret("app") == want


@pytest.mark.parametrize(
    "text",
    ["", "*123", "$A$005$short", "0x2441", "$A$005$" + "é" * 20 + "x" * 43, "0xzz", "$A$000$" + "s" * 20 + "x" * 43],
)
def test_other_hashes_are_refused(text: str) -> None:
    data = good()
    data["users"]["app"] = {"password_hash": text}
    assert problems(data)[0].startswith("users.app.password_hash: found a value of ")


def test_load_reads_the_file_and_knows_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "shardproxy.toml"
    path.write_text(GOOD)
    config = load(path, {})
    assert isinstance(config, Config)
    assert config.resolve("x.pem") == tmp_path / "x.pem"
    assert config.resolve("/x.pem") == Path("/x.pem")
    assert config.source == str(path)


def test_overrides_replace_keys_and_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "shardproxy.toml"
    path.write_text(GOOD)
    config = load(path, {}, {"proxy": {"workers": 5}, "listen.mysql": {"port": 4000}})
    assert (config.proxy.workers, config.listen.mysql.port, config.listen.mysql.host) == (5, 4000, "127.0.0.1")
    with pytest.raises(ConfigError, match=r"proxy\.workers: found 0"):
        load(path, {}, {"proxy": {"workers": 0}})
    path.write_text("listen = 3\n" + GOOD)
    with pytest.raises(ConfigError, match="listen: found 3; expected a table"):
        load(path, {}, {"listen.mysql": {"port": 4000}})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read .*shardctl init"),
        (b"a = \nb = 1", "not TOML: .*line 1"),
        (b"\xff = 1", "not UTF-8 at byte 0"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "shardproxy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        load(path, {})


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
    return found


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers() | st.text(max_size=3), max_size=3),
    st.dictionaries(
        st.text(max_size=5), st.integers() | st.dictionaries(st.text(max_size=3), st.text(max_size=3)), max_size=2
    ),
)


def test_a_line_break_in_a_name_breaks_no_line() -> None:
    data = good()
    data["shards"]["a\rb\n"] = {"primary": "nowhere"}
    with pytest.raises(ConfigError) as error:
        parse(data)
    assert all(": found " in line for line in str(error.value).splitlines())


@given(st.sampled_from(_places(good())), JUNK)
def test_junk_anywhere_is_a_config_error_or_fine_never_another_exception(path: tuple[Any, ...], junk: object) -> None:
    data = copy.deepcopy(good())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = junk
    try:
        parse(data)
        told = ""
    except ConfigError as error:
        told = str(error)
    assert not told or all(": found " in line for line in told.splitlines())


def test_the_stores_login_comes_from_the_environment() -> None:
    store = {"kind": "etcd", "endpoints": ["[::1]:2379"], "user": "proxy", "password_env": "STORE_PASSWORD"}
    config = parse({**good(), "store": store}, environ={"STORE_PASSWORD": "secret"})
    assert config.store_login() == ("proxy", "secret")
    assert [str(address) for address in config.store.endpoints] == ["[::1]:2379"]
    assert parse(good()).store_login() is None
    with pytest.raises(ConfigError, match="STORE_PASSWORD"):
        parse({**good(), "store": store}).store_login()
