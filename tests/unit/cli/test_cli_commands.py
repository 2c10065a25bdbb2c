"""Every command of shardctl and shardproxy: what it prints, where, and its exit status."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from shardproxy.admin.http import ExplainValue, make_app
from shardproxy.cli import check as check_module
from shardproxy.cli.main import app as shardctl
from shardproxy.cli.proxy import app as shardproxy_app
from shardproxy.cli.status import uptime
from shardproxy.config import Config, load
from shardproxy.errors import UnsupportedError
from shardproxy.protocol.mysql.auth import parse_stored_hash

FILE = """
[listen.admin]
port = {port}
[backend]
user = "proxy"
password = "x"
[users.app]
password = "x"
[shards.a]
primary = "127.0.0.1:1"
[keyspaces.main]
key_type = "int"
map = "hash"
ring = {{ a = 1 }}
[keyspaces.main.tables]
users = {{ key = "uid" }}
"""

STATUS = {
    "version": "0.1.0",
    "epoch": 3,
    "workers": [
        {
            "worker": "1",
            "pid": 4711,
            "uptime_s": 3725.0,
            "clients": 3,
            "sessions_pinned": {"user variable": 1},
            "transactions": 0,
            "queries_total": 1234,
            "rss_bytes": 61 * 2**20,
        }
    ],
    "servers": [
        {
            "name": "a/primary",
            "shard": "a",
            "role": "primary",
            "address": "10.0.0.1:3306",
            "up": True,
            "lag_s": None,
            "reason": "",
            "pool": {"idle": 2, "busy": 1, "shared": 2, "limit": 64, "waits": 0, "timeouts": 0},
        },
        {
            "name": "a/replica1",
            "shard": "a",
            "role": "replica",
            "address": "10.0.0.2:3306",
            "up": False,
            "lag_s": 7.5,
            "reason": "lag [7.5 s]",
            "pool": {"idle": 0, "busy": 0, "shared": 0, "limit": 64, "waits": 4, "timeouts": 1},
        },
    ],
    "store": {
        "kind": "embedded",
        "up": False,
        "problem": "no answer [5 s]",
        "identity": "5f0c",
        "maps": [
            {
                "keyspace": "main",
                "epoch": 3,
                "acknowledged": 2,
                "move": {"id": 1, "stage": "armed", "streams": [{"source": "a", "target": "b"}]},
            }
        ],
    },
    "plan_cache": {"entries": 12, "hits": 900, "misses": 100},
    "totals": {"queries": 1234, "errors": {"1064": 2}, "connections": 5, "worker_restarts": 0},
}
TOPOLOGY = {
    "epoch": 9,
    "shards": [{"name": "a", "primary": "10.0.0.1:3306", "replicas": ["10.0.0.2:3306"]}],
    "keyspaces": [
        {
            "name": "shop",
            "key_type": "int",
            "map": "range",
            "ranges": [{"from": "min", "to": 1000000, "shard": "a"}],
            "tables": [{"name": "users", "kind": "sharded", "key": "uid"}, {"name": "c", "kind": "reference"}],
        }
    ],
}
EXPLAINED = {
    "kind": "SELECT",
    "opcode": "EqualUnique",
    "rung": 1,
    "rung_name": "one shard",
    "reason": "key uid = literal",
    "digest": "SELECT * FROM users WHERE uid = ?",
    "keyspace": "main",
    "tables": ["users"],
    "shards": ["a"],
    "role": "replica",
    "sql": "SELECT * FROM users WHERE uid = 7 /* [bold] */",
    "pins": [],
    "error": None,
}


class FakeControl:
    """What a supervisor would answer; remembers what was asked."""

    def __init__(self) -> None:
        self.explained: list[tuple[str, str | None, Sequence[ExplainValue]]] = []
        self.answer: dict[str, Any] = EXPLAINED

    async def status(self) -> dict[str, Any]:
        return STATUS

    async def topology(self) -> dict[str, Any]:
        return TOPOLOGY

    async def explain(self, sql: str, schema: str | None, values: Sequence[ExplainValue]) -> dict[str, Any]:
        self.explained.append((sql, schema, values))
        if sql == "BROKEN":
            raise UnsupportedError("no such thing")
        return self.answer

    async def metrics(self) -> bytes:
        return b""

    def ready(self) -> tuple[bool, str]:
        return True, ""


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are as wide as they like, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A running admin server with a FakeControl (`control`), and a file that points to it (`config`)."""
    control, started, ended = FakeControl(), threading.Event(), threading.Event()
    port = [0]
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        runner = web.AppRunner(make_app(control), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port[0] = runner.addresses[0][1]
        started.set()
        await loop.run_in_executor(None, ended.wait)
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    config = tmp_path / "shardproxy.toml"
    config.write_text(FILE.format(port=port[0]))
    yield SimpleNamespace(control=control, config=str(config))
    ended.set()
    thread.join(10)
    loop.close()


@pytest.fixture
def lonely(tmp_path: Path) -> str:
    """A file whose proxy does not run."""
    config = tmp_path / "lonely.toml"
    config.write_text(FILE.format(port=1))
    return str(config)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(shardctl, list(arguments), input=stdin)


def words(result: Result) -> str:
    """stdout with runs of spaces as one: tables are compared by their words."""
    return re.sub(r" *\n", "\n", re.sub(r" +", " ", result.stdout))


# ── init ──


def test_init_writes_a_file_that_loads_and_never_overwrites_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    result = run("init", str(path))
    assert result.exit_code == 0
    assert "shardctl check" in result.stderr
    assert "main" in load(path, {}).keyspaces
    path.write_text("mine")
    refused = run("init", str(path))
    assert (refused.exit_code, path.read_text()) == (1, "mine")
    assert "--force" in refused.stderr
    assert run("init", str(path), "--force").exit_code == 0
    assert load(path, {})


def test_init_says_why_it_cannot_write(tmp_path: Path) -> None:
    result = run("init", str(tmp_path / "no" / "folder.toml"))
    assert result.exit_code == 1
    assert "cannot be written: No such file" in result.stderr


# ── status, topology, explain ──


def test_status_shows_workers_servers_and_pools(proxy: SimpleNamespace) -> None:
    result = run("status", "-c", proxy.config)
    assert result.exit_code == 0
    out = words(result)
    assert "map epoch 3, 1234 queries, plan cache 12 plans, 90.0% hits; errors 1064: 2" in out
    assert "1 4711 1h 2m 3 0 1 user variable 1234 61 MiB" in out
    assert "a/primary 10.0.0.1:3306 up – 2 1 2 64 0 0" in out
    assert "a/replica1 10.0.0.2:3306 down: lag [7.5 s] 7.5 s 0 0 0 64 4 1" in out
    assert "map store (embedded) away" in out
    assert "no answer [5 s]" in out
    assert "keyspace main: map epoch 3, acknowledged 2; move 1 is armed" in out


def test_json_is_what_the_proxy_answers(proxy: SimpleNamespace) -> None:
    for command, answer in (("status", STATUS), ("topology", TOPOLOGY)):
        result = run(command, "-c", proxy.config, "--json")
        assert (result.exit_code, json.loads(result.stdout)) == (0, answer)


def test_topology_shows_ranges_and_tables(proxy: SimpleNamespace) -> None:
    out = words(run("topology", "-c", proxy.config))
    for line in (
        "map epoch 9",
        "a 10.0.0.1:3306 10.0.0.2:3306",
        "keyspace shop: range map over int keys",
        "min 1000000 a",
    ):
        assert line in out
    assert "users sharded by uid" in out
    assert "c reference on every shard" in out


def test_topology_without_a_proxy_is_the_file(lonely: str) -> None:
    result = run("topology", "-c", lonely)
    assert result.exit_code == 0
    assert f"no proxy is running; this is what {lonely} says" in result.stderr
    assert "a 4096 of 4096 100.0%" in words(result)
    parsed = json.loads(run("topology", "-c", lonely, "--json").stdout)
    assert parsed["keyspaces"][0]["name"] == "main"


@pytest.mark.parametrize("arguments", [["status"], ["explain", "SELECT 1"]])
def test_without_a_proxy_the_status_is_3_and_the_words_say_what_to_do(lonely: str, arguments: list[str]) -> None:
    result = run(*arguments, "-c", lonely)
    assert result.exit_code == 3
    assert result.stdout == ""
    assert "no proxy answers at 127.0.0.1:1" in result.stderr
    assert "shardproxy run --config" in result.stderr


def test_explain_shows_plan_and_destination_and_leaves_sql_as_it_is(proxy: SimpleNamespace) -> None:
    result = run("explain", "SELECT * FROM users WHERE uid = 7", "-c", proxy.config)
    assert result.exit_code == 0
    out = words(result)
    assert "plan EqualUnique (SELECT), rung 1: one shard" in out
    assert "because key uid = literal" in out
    assert "goes to a (replica)" in out
    assert "sent SELECT * FROM users WHERE uid = 7 /* [bold] */" in out
    assert proxy.control.explained == [("SELECT * FROM users WHERE uid = 7", "main", [])]


def test_explain_takes_values_schema_and_stdin(proxy: SimpleNamespace) -> None:
    values = '[7, "zoe", null, 1.5]'
    result = run("explain", "-", "-c", proxy.config, "-s", "other", "--values", values, stdin="SELECT ?")
    assert result.exit_code == 0
    assert proxy.control.explained == [("SELECT ?", "other", [7, "zoe", None, 1.5])]
    refused = run("explain", "SELECT ?", "-c", proxy.config, "--values", "7")
    assert refused.exit_code == 2
    assert "expected a JSON array" in refused.stderr


def test_explain_shows_errors_pins_and_different_texts(proxy: SimpleNamespace) -> None:
    error = {"code": 9100, "sqlstate": "HY000", "message": "ORDER BY across shards"}
    proxy.control.answer = {
        **EXPLAINED,
        "error": error,
        "shards": [],
        "role": None,
        "sql": None,
        "pins": ["user variable"],
    }
    out = words(run("explain", "x", "-c", proxy.config))
    assert "error 9100 (HY000): ORDER BY across shards" in out
    assert "pins user variable" in out
    assert "goes to" not in out
    proxy.control.answer = {**EXPLAINED, "shards": ["a", "b"], "sql": None, "sql_by_shard": {"a": "one", "b": "two"}}
    out = words(run("explain", "x", "-c", proxy.config))
    assert "goes to a, b (replica)" in out
    assert "sent to a one\n" in out
    assert "sent to b two\n" in out
    proxy.control.answer = {**EXPLAINED, "shards": [], "role": None, "sql": None}
    assert "goes to no server: the proxy answers" in words(run("explain", "x", "-c", proxy.config))


def test_an_error_answer_of_the_proxy_is_told_with_status_1(proxy: SimpleNamespace) -> None:
    result = run("explain", "BROKEN", "-c", proxy.config)
    assert result.exit_code == 1
    assert "answered 422: no such thing" in result.stderr


def test_another_http_server_on_the_admin_port_is_recognised(tmp_path: Path) -> None:
    import http.server

    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        config = tmp_path / "f.toml"
        config.write_text(FILE.format(port=server.server_address[1]))
        result = run("status", "-c", str(config))
        thread.join(10)
    assert result.exit_code == 1
    assert "is that a shardproxy admin port?" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (3725, "1h 2m"), (86400 * 3 + 7200, "3d 2h")]
)
def test_uptime_shows_the_two_largest_units(seconds: float, text: str) -> None:
    assert uptime(seconds) == text


# ── check ──


def test_check_of_an_unusable_file_is_status_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[proxy]\nwokers = 3\n[backend]\nuser = "x"\npassword = "sesame"\n')
    result = run("check", "-c", str(path))
    assert result.exit_code == 2
    assert 'proxy.wokers: found an unknown key; expected "workers"?' in result.stderr
    assert "shards: found nothing" in result.stderr
    assert "sesame" not in result.output
    data = json.loads(run("check", "-c", str(path), "--json").stdout)
    assert (data["usable"], len(data["problems"]) >= 2) == (False, True)


def test_check_of_the_file_only(lonely: str) -> None:
    result = run("check", "--file-only", "-c", lonely)
    assert (result.exit_code, result.stdout) == (0, "checked the file: no errors, no warnings\n")


def test_check_of_files_that_the_file_names(tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    tls = '[listen.mysql]\ntls_cert = "c.pem"\ntls_key = "k.pem"\n'
    text = tls + FILE.format(port=1).replace('[users.app]\npassword = "x"', '[users.app]\npassword_env = "NOT_SET"')
    config.write_text(text.replace('password = "x"\n[users', 'password = "x"\ntls = "required"\n[users'))
    (tmp_path / "c.pem").write_text("no certificate")
    (tmp_path / "k.pem").write_text("no key")
    (tmp_path / "k.pem").chmod(0o644)
    result = run("check", "--file-only", "-c", str(config), "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert (data["errors"], data["warnings"]) == (1, 3)
    assert [(f["severity"], f["where"]) for f in data["findings"]] == [
        ("error", "listen.mysql.tls_cert"),
        ("warning", "backend.tls_ca"),
        ("warning", "users.app"),
        ("warning", "listen.mysql.tls_key"),
    ]
    assert all(f["what"] and f["fix"] for f in data["findings"])


def test_a_missing_backend_password_is_a_warning_about_the_file_and_unusable_for_asking_servers(lonely: str) -> None:
    path = Path(lonely)
    path.write_text(path.read_text().replace('password = "x"\n[users', 'password_env = "NOT_SET"\n[users'))
    told = json.loads(run("check", "--file-only", "-c", lonely, "--json").stdout)["findings"]
    assert [(f["severity"], f["where"]) for f in told] == [("warning", "backend")]
    asked = run("check", "-c", lonely)
    assert asked.exit_code == 2
    assert "backend.password_env: found the name 'NOT_SET', but no such environment variable" in asked.stderr


def test_check_tells_of_servers_that_do_not_answer(lonely: str) -> None:
    result = run("check", "-c", lonely)
    assert result.exit_code == 1
    assert "error a/primary: cannot be asked: a/primary (127.0.0.1:1)" in result.stdout
    assert "fix: " in result.stdout
    assert result.stdout.endswith("checked the file and the servers of 1 shards: 1 error, no warnings\n")


def test_ctrl_c_ends_with_130_and_one_word(lonely: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_module, "check_all", interrupted)
    result = run("check", "-c", lonely)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


# ── hash-password ──


def test_hash_password_prints_both_forms_and_not_the_password() -> None:
    result = run("hash-password", "--stdin", stdin="geheim-ü\n")
    assert result.exit_code == 0
    assert "geheim" not in result.output
    hashes = [tomllib.loads(line)["password_hash"] for line in result.stdout.splitlines()]
    assert len(hashes) == 2
    for text in hashes:
        assert parse_stored_hash(text).matches("geheim-ü".encode())
        assert not parse_stored_hash(text).matches(b"other")
    again = run("hash-password", "--stdin", "--json", stdin="geheim-ü")
    assert json.loads(again.stdout)["caching_sha2_password"] != hashes[1], "a fresh salt each time"


def test_hash_password_asks_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one", "two", "same", "same"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert run("hash-password").exit_code == 1
    result = run("hash-password", "--json")
    assert parse_stored_hash(json.loads(result.stdout)["mysql_native_password"]).matches(b"same")


def test_an_empty_password_has_no_hash() -> None:
    assert run("hash-password", "--stdin", stdin="\n").exit_code == 1


# ── help and version ──


def test_every_command_teaches_with_examples() -> None:
    names = {"init", "check", "migrate", "status", "topology", "explain", "hash-password"}
    top = run("--help").stdout
    for name in names:
        assert name in top
        text = run(name, "--help").stdout
        assert "Examples:" in text
        assert f"shardctl {name}" in text
    for result in (CliRunner().invoke(shardproxy_app, ["run", "--help"]),):
        assert "shardproxy run --config /etc/shardproxy.toml" in result.stdout
    assert "Exit status: 0 fine" in top


def test_versions() -> None:
    assert run("--version").stdout.startswith("shardctl ")
    assert CliRunner().invoke(shardproxy_app, ["--version"]).stdout.startswith("shardproxy ")


def test_an_unknown_option_is_status_2() -> None:
    assert run("status", "--colour").exit_code == 2


# ── shardproxy run ──


def run_proxy(monkeypatch: pytest.MonkeyPatch, status: int, *arguments: str) -> tuple[Result, list[Config]]:
    given: list[Config] = []

    def supervise(config: Config) -> int:
        given.append(config)
        return status

    monkeypatch.setitem(sys.modules, "shardproxy.app.supervisor", SimpleNamespace(run=supervise))
    return CliRunner().invoke(shardproxy_app, ["run", *arguments]), given


def test_run_gives_the_file_with_overrides_to_the_supervisor(monkeypatch: pytest.MonkeyPatch, lonely: str) -> None:
    result, [config] = run_proxy(monkeypatch, 0, "-c", lonely, "--workers", "5", "--mysql-port", "4000")
    assert result.exit_code == 0
    assert (config.proxy.workers, config.listen.mysql.port, config.listen.admin.port) == (5, 4000, 1)


def test_run_passes_a_failure_on(monkeypatch: pytest.MonkeyPatch, lonely: str) -> None:
    result, _ = run_proxy(monkeypatch, 1, "-c", lonely)
    assert result.exit_code == 1
    assert "its log says why" in result.stderr


def test_run_with_a_wrong_file_or_override_is_status_2(monkeypatch: pytest.MonkeyPatch, lonely: str) -> None:
    result, given = run_proxy(monkeypatch, 0, "-c", lonely, "--workers", "0")
    assert (result.exit_code, given) == (2, [])
    assert "proxy.workers: found 0" in result.stderr
    assert run_proxy(monkeypatch, 0, "-c", "nowhere.toml")[0].exit_code == 2
