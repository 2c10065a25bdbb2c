"""The move that the tests of the fence are about, and what they ask of servers and proxy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
import pytest

from shardproxy.local import LocalServer
from shardproxy.topology.keys import KeyType
from shardproxy.topology.maps import INT_MAX, INT_MIN, KeyRange, RangeMap
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys
from tests.in_process import WorkerHere
from tests.proxy import SPLIT

IDENT, EPOCH = 7, 2
MOVING, STAYING, OTHER = 600, 10, 2000  # keys: on shard 0 and moving; there and staying; on shard 1
MOVED = RangeMap((KeyRange(INT_MIN, 500, 0), KeyRange(500, INT_MAX + 1, 1)))
KEYS = MovingKeys(KeyType.INT, intervals=[(500, SPLIT)])


def move(phase: Phase, epoch: int = EPOCH) -> Move:
    return Move(IDENT, phase, epoch, (Stream(0, 1, KEYS),))


def arm(here: WorkerHere, phase: Phase = Phase.ARMED, epoch: int = EPOCH) -> None:
    """A map with the move in this phase arrives."""
    owned = {"map": MOVED} if phase in (Phase.SWITCHED, Phase.OPEN, Phase.COMPLETING) else {}
    here.hand(here.moving(move(phase, epoch), "main", **owned))


def close_fence(server: LocalServer) -> None:
    server.rows(f"UPDATE _shardproxy.fence SET epoch = {EPOCH + 1} WHERE move_id = {IDENT}")


def balance(server: LocalServer, key: int) -> int | None:
    rows = server.rows(f"SELECT balance FROM main.users WHERE uid = {key}")
    return int(rows[0][0]) if rows else None


@contextmanager
def fence_locked(server: LocalServer) -> Iterator[None]:
    """Whoever takes the fence waits."""
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT epoch FROM _shardproxy.fence WHERE move_id = {IDENT} FOR UPDATE")
        yield
        cursor.execute("ROLLBACK")


def fence_is_held(server: LocalServer) -> bool:
    with server.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SET innodb_lock_wait_timeout = 1")
        return waited(cursor, f"UPDATE _shardproxy.fence SET changed_at = NOW(3) WHERE move_id = {IDENT}")


def waited(cursor: Any, sql: str) -> bool:
    """Whether the statement waited for a lock, in vain."""
    try:
        cursor.execute(sql)
    except pymysql.MySQLError as error:
        if error.args[0] != 1205:
            raise
        return True
    return False


class Behind:
    """A statement in a thread of its own."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.answer: Any = None
        self.error: Exception | None = None
        self._work = work
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.answer = self._work()
        except Exception as error:
            self.error = error

    def result(self) -> Any:
        self.thread.join(20)
        assert not self.thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.answer


def run(cursor: Any, sql: str) -> Any:
    return cursor.execute(sql)


def code(error: pytest.ExceptionInfo[BaseException]) -> int:
    return int(error.value.args[0])
