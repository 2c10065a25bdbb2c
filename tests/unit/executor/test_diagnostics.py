"""The conditions of a statement: read from its server, kept with the session, and shown as asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shardproxy.backend.pool import Pool
from shardproxy.errors import BackendLost, SqlError
from shardproxy.executor import diagnostics
from shardproxy.executor.diagnostics import Condition, fetch
from shardproxy.executor.session_commands import show_warnings
from shardproxy.planner.plan import Opcode, Plan, Rung, StatementKind
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.resultset import parse_resultset
from shardproxy.protocol.mysql.text import resultset
from shardproxy.session.profile import profile
from shardproxy.session.session import Session
from shardproxy.sql.modes import SqlModes
from tests.unit.backend.fake_server import PLAIN, SERVER, Answer, FakeServer, refused

COLUMNS = [ColumnDefinition(name) for name in (b"Level", b"Code", b"Message")]
NOTE: Condition = (b"Note", b"1051", b"Unknown table 'a'")
WARNING: Condition = (b"Warning", b"1265", b"Data truncated")
ERROR: Condition = (b"Error", b"1062", b"Duplicate entry")


def rows(conditions: list[list[bytes | None]]) -> list[bytes]:
    """Payloads of the server's answer to SHOW WARNINGS."""
    wire = resultset(COLUMNS, conditions, 2, 0, False)
    return [payload for _, payload in PacketReader(len(wire), next_seq=1).feed(wire)]


def fetched(answer: Answer, error: tuple[int, str] | None = None) -> list[Condition]:
    async def run() -> list[Condition]:
        server = FakeServer()
        connection = await Pool(SERVER, server.dial, 1, 1.0).checkout(PLAIN)
        server.answer = lambda payload: answer if payload == b"\x03SHOW WARNINGS" else refused()
        return await fetch(connection, error)

    return asyncio.run(run())


@pytest.mark.parametrize("error", [None, (1062, "Duplicate entry")])
def test_conditions_are_read(error: tuple[int, str] | None) -> None:
    assert fetched(rows([list(NOTE), list(ERROR)]), error) == [NOTE, ERROR]


def test_as_many_as_a_server_keeps() -> None:
    found = fetched(rows([[b"Note", b"%d" % i, None] for i in range(diagnostics.KEPT + 5)]))
    assert found == [(b"Note", b"%d" % i, b"") for i in range(diagnostics.KEPT)]


@pytest.mark.parametrize("answer", [refused(), BackendLost, rows([])], ids=["err", "lost", "none"])
def test_the_error_itself_is_kept_when_the_server_cannot_tell(answer: Answer) -> None:
    assert fetched(answer, (1062, "Duplicate entry")) == [ERROR]
    assert fetched(answer) == []


# ── SHOW WARNINGS ──


class Asking:
    """As much of a client as SHOW WARNINGS needs."""

    def __init__(self, conditions: list[Condition] | None, warnings: int, capabilities: int = 0) -> None:
        self.session = Session(1, "app", profile(capabilities, None, ()), SqlModes())
        self.session.conditions = conditions
        self.session.warnings = warnings
        self.held: Any = None
        self.spanning: Any = None
        self.mariadb = False
        self.seq = 1
        self.written = b""
        self.finished = 0
        self.relayed: list[tuple[Any, bytes, int]] = []

    def status(self) -> int:
        return 2

    def write(self, data: bytes) -> None:
        self.written += data

    def finish(self) -> None:
        self.finished += 1

    def relay_from(self, connection: Any, wire: bytes, shard: int) -> None:
        self.relayed.append((connection, wire, shard))


PLAN = Plan(StatementKind.SHOW_WARNINGS, Opcode.NONE, Rung.ONE_SHARD, "session")
KEPT = [NOTE, WARNING, ERROR, NOTE]


def shown(sql: str, conditions: list[Condition] | None, warnings: int = 0, capabilities: int = 0) -> list[Any]:
    client: Any = Asking(conditions, warnings, capabilities)
    assert show_warnings(client, PLAN, sql.encode(), b"wire") is None
    assert client.finished == 1 and not client.relayed
    result = parse_resultset(client.written, bool(capabilities))
    names = [column.name for column in result.columns]
    return [names, *map(tuple, result.rows)]


HEAD = [b"Level", b"Code", b"Message"]


@pytest.mark.parametrize("capabilities", [0, int(Cap.DEPRECATE_EOF)])
@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SHOW WARNINGS", KEPT),
        ("show errors", [ERROR]),
        ("SHOW WARNINGS LIMIT 2", KEPT[:2]),
        ("SHOW WARNINGS LIMIT 1, 2", KEPT[1:3]),
        ("SHOW WARNINGS LIMIT 2 OFFSET 1", KEPT[1:3]),
        ("SHOW WARNINGS LIMIT 0", []),
        ("SHOW WARNINGS LIMIT 9, 9", []),
        ("SHOW ERRORS LIMIT 1 OFFSET 1", []),
    ],
)
def test_what_was_kept_is_shown(sql: str, expected: list[Condition], capabilities: int) -> None:
    assert shown(sql, KEPT, 4, capabilities) == [HEAD, *expected]


def test_nothing_was_kept() -> None:
    assert shown("SHOW WARNINGS", None) == [HEAD]


def test_counts() -> None:
    assert shown("SHOW COUNT(*) WARNINGS", KEPT, 70) == [[b"@@session.warning_count"], (b"70",)]
    assert shown("SHOW COUNT(*) ERRORS", KEPT, 70) == [[b"@@session.error_count"], (b"1",)]
    assert shown("SHOW COUNT(*) ERRORS", None) == [[b"@@session.error_count"], (b"0",)]


def test_other_forms_are_refused() -> None:
    client: Any = Asking(KEPT, 4)
    with pytest.raises(SqlError, match="LIMIT") as caught:
        show_warnings(client, PLAN, b"SHOW WARNINGS LIKE 'a'", b"wire")
    assert caught.value.code == 1064 and not client.written


def test_a_held_connection_answers_itself_unless_something_was_kept() -> None:
    client: Any = Asking(None, 0)
    client.held, client.session.shard = object(), 1
    assert show_warnings(client, PLAN, b"SHOW WARNINGS", b"wire") is None
    assert client.relayed == [(client.held, b"wire", 1)] and not client.written
    client = Asking([ERROR], 1)
    client.held = object()
    show_warnings(client, PLAN, b"SHOW WARNINGS", b"wire")
    assert client.written and not client.relayed
