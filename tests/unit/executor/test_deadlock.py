"""The answer to a victim's statement: an interruption becomes a deadlock, anything else stays what it is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from shardproxy.backend.connection import BackendConnection, Sink
from shardproxy.errors import BackendLost
from shardproxy.executor.deadlock import Verdict
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import build_err, build_ok, parse_err
from shardproxy.protocol.mysql.response import ERR, OK, QUERY, ResponseScanner

INTERRUPTED = packet(build_err(1317, "70100", "Query execution was interrupted"), 1)
DEADLOCK = packet(build_err(1213, "40001", "Deadlock found when trying to get lock; try restarting transaction"), 1)
DONE = packet(build_ok(1, 0, 3, 0), 1)
# One column, its definition, and a row of 5000 bytes: the beginning of an answer of rows.
DEFINITION = b"\x03def" + b"\x00" * 4 + b"\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\xfd\x00\x00\x00\x00\x00"
ROWS = packet(b"\x01", 1) + packet(DEFINITION, 2) + packet(b"\xfc\x88\x13" + b"x" * 5000, 3)


class Heard(Sink):
    def __init__(self) -> None:
        self.data = b""
        self.ends: list[tuple[int, int]] = []
        self.lost = False

    def response_chunk(self, data: bytes, connection: BackendConnection) -> None:
        self.data += data

    def response_end(self, data: bytes, connection: BackendConnection) -> None:
        self.data += data
        self.ends.append((connection.scanner.outcome, connection.scanner.error_code))

    def response_lost(self, error: BackendLost, connection: BackendConnection) -> None:
        self.lost = True


class Server:
    """As much of a connection as a sink sees."""

    def __init__(self, following: int = 0) -> None:
        self.scanner = ResponseScanner(True)
        self.sinks = [None] * following
        self.heard = Heard()
        self.struck = 0
        self.verdict = Verdict(self.heard, self._strike)
        self.scanner.start(QUERY)

    def _strike(self) -> None:
        self.struck += 1

    def says(self, data: bytes) -> None:
        end = self.scanner.scan(data, 0)
        connection = cast(Any, self)
        if end < 0:
            self.verdict.response_chunk(data, connection)
        else:
            assert end == len(data)
            self.verdict.response_end(data, connection)


def test_an_interruption_is_a_deadlock() -> None:
    server = Server()
    server.says(INTERRUPTED)
    assert server.heard.data == DEADLOCK
    assert server.heard.ends == [(ERR, 1213)]
    assert parse_err(server.scanner.error).sqlstate == "40001"
    assert server.struck == 1
    server.verdict.deliver()
    assert len(server.heard.ends) == 1


@pytest.mark.parametrize("cut", range(1, len(INTERRUPTED)))
def test_in_pieces(cut: int) -> None:
    server = Server()
    server.says(INTERRUPTED[:cut])
    assert server.heard.data == b""
    server.says(INTERRUPTED[cut:])
    assert server.heard.data == DEADLOCK


def test_among_rows_it_keeps_its_number() -> None:
    server = Server()
    server.says(ROWS)
    assert server.heard.data == ROWS, "so much is not held back"
    server.says(INTERRUPTED[:3] + b"\x04" + INTERRUPTED[4:])
    assert server.heard.data == ROWS + DEADLOCK[:3] + b"\x04" + DEADLOCK[4:]


@pytest.mark.parametrize("answer", [DONE, packet(build_err(1062, "23000", "Duplicate entry"), 1)])
def test_an_answer_that_came_first_waits_for_the_kill(answer: bytes) -> None:
    server = Server()
    server.says(answer)
    assert server.heard.ends == []
    server.verdict.deliver()
    assert server.heard.data == answer
    assert len(server.heard.ends) == 1
    assert server.struck == 0


def test_an_answer_after_the_kill_goes_on_at_once() -> None:
    server = Server()
    server.verdict.deliver()
    server.says(DONE)
    assert server.heard.ends == [(OK, 0)]


def test_with_statements_behind_it_it_goes_on_at_once() -> None:
    server = Server(following=1)
    server.says(DONE)
    assert server.heard.ends == [(OK, 0)]


def test_a_lost_connection() -> None:
    server = Server()
    server.verdict.response_lost(BackendLost("gone"), cast(Any, server))
    assert server.heard.lost
