"""Writes to moving keys that wait for the next map, and statements that see one map. Real servers, a worker in this
process, and maps, fence rows and their closing by hand: there is no orchestrator."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pymysql
import pytest

from shardproxy.backend.decisions import probe_texts
from shardproxy.executor import transaction
from shardproxy.topology.moves import Phase
from tests.in_process import WorkerHere
from tests.integration.fence.scene import (
    MOVED,
    MOVING,
    OTHER,
    STAYING,
    Behind,
    arm,
    balance,
    close_fence,
    code,
    fence_is_held,
    move,
    run,
)
from tests.proxy import eventually

# ── held ──


def test_held_writes_go_to_the_new_owner(here: WorkerHere) -> None:
    arm(here, Phase.CLOSING)
    before = here.worker.front.gateway.held_writes.count
    texts = [
        f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}",
        f"INSERT INTO users VALUES ({MOVING + 70}, 'n', 1)",
        f"SELECT balance FROM users WHERE uid = {MOVING} FOR UPDATE",
        f"INSERT INTO users VALUES ({STAYING + 5}, 'p', 1), ({MOVING + 71}, 'q', 1)",
        "BEGIN",
    ]
    with closing(here.connect()) as reader, reader.cursor() as reads:
        connections = [here.connect() for _ in texts]
        behind = [Behind(partial(run, c.cursor(), t)) for c, t in zip(connections, texts, strict=True)]
        behind.pop().result()
        behind.append(Behind(lambda: run(connections[-1].cursor(), f"DELETE FROM users WHERE uid = {MOVING + 1}")))
        eventually(lambda: here.waiting == len(texts), "all wait")
        reads.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")
        assert reads.fetchall() == ((100,),)  # reads never wait
        reads.execute(f"UPDATE users SET balance = 7 WHERE uid = {STAYING}")
        here.primary(1).rows(f"INSERT INTO main.users VALUES ({MOVING}, 'c', 200), ({MOVING + 1}, 'd', 200)")
        arm(here, Phase.SWITCHED)
        eventually(lambda: here.waiting == len(texts), "all wait")
        arm(here, Phase.OPEN)
        for one in behind:
            one.result()
        connections[-1].commit()
        for connection in connections:
            connection.close()
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), MOVING)) == (100, 201)
    assert balance(here.primary(1), MOVING + 70) == balance(here.primary(1), MOVING + 71) == 1
    assert balance(here.primary(1), MOVING + 1) is None
    assert balance(here.primary(0), STAYING + 5) == 1
    held = here.worker.front.gateway.held_writes
    assert held.count - before == len(texts)
    assert held.longest > 0


def test_held_writes_go_back_to_the_old_owner_after_a_time_out(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.CLOSING)
    behind = Behind(lambda: run(cursor, f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}"))
    eventually(lambda: here.waiting == 1, "it waits")
    arm(here, Phase.COPYING)
    assert behind.result() == 1
    assert balance(here.primary(0), MOVING) == 101


def test_a_held_write_gives_up_in_the_end(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.CLOSING)
    with pytest.raises(pymysql.MySQLError, match=r"waited 3 s .*keyspace 'main'.*move 7, closing.*try again") as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 9122
    cursor.execute(f"SELECT balance FROM users WHERE uid = {MOVING}")


@pytest.mark.parametrize("way", ["KILL QUERY", "KILL", "close"])
def test_a_killed_client_waits_no_more(here: WorkerHere, way: str) -> None:
    arm(here, Phase.CLOSING)
    with closing(here.connect()) as other, other.cursor() as kills:
        connection = here.connect()
        cursor = connection.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        ident = cursor.fetchone()[0]
        behind = Behind(lambda: run(cursor, f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}"))
        eventually(lambda: here.waiting == 1, "it waits")
        if way == "close":
            connection._sock.shutdown(2)
        else:
            kills.execute(f"{way} {ident}")
        eventually(lambda: here.waiting == 0, "it waits no more", 2.5)  # hold_timeout is 3 s
        with pytest.raises(pymysql.MySQLError) as error:
            behind.result()
        assert code(error) == (1317 if way == "KILL QUERY" else 2013)
        if way == "KILL QUERY":
            cursor.execute("SELECT 1")
    arm(here, Phase.COPYING)
    assert balance(here.primary(0), MOVING) == 100


def test_a_pinned_session_is_fenced_in_each_of_its_transactions(here: WorkerHere, cursor: Any) -> None:
    cursor.execute("/*shardproxy: shard=shard1*/ SELECT GET_LOCK('fence', 1)")
    arm(here)
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert fence_is_held(here.primary(0))
    cursor.execute("COMMIT")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert fence_is_held(here.primary(0))
    arm(here, Phase.CLOSING)
    cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    cursor.execute("COMMIT")
    close_fence(here.primary(0))
    arm(here)  # as a proxy with an old map has it
    cursor.execute("BEGIN")
    with pytest.raises(pymysql.MySQLError) as error:
        cursor.execute(f"UPDATE users SET balance = balance + 1 WHERE uid = {MOVING}")
    assert code(error) == 1213
    assert balance(here.primary(0), MOVING) == 104
    cursor.execute("SELECT IS_USED_LOCK('fence') IS NOT NULL")
    assert cursor.fetchall() == ((1,),)


def test_schema_changes_wait_until_the_move_is_over(here: WorkerHere, cursor: Any) -> None:
    arm(here, Phase.COPYING)
    with pytest.raises(pymysql.MySQLError, match="no schema changes while keys of keyspace 'main'") as error:
        cursor.execute("ALTER TABLE users ADD COLUMN more INT")
    assert code(error) == 9122


# ── one map a statement ──


def test_a_map_that_arrives_amid_a_statement_changes_nothing_for_it(here: WorkerHere) -> None:
    """An UPDATE over both shards waits for a row; meanwhile the keys' owner changes twice. Its transaction goes on
    where it was; its shards have kept their places."""
    with closing(here.connect()) as connection, connection.cursor() as cursor, here.primary(0).connect() as blocker:
        held = blocker.cursor()
        held.execute("BEGIN")
        held.execute(f"SELECT * FROM main.users WHERE uid = {STAYING} FOR UPDATE")
        behind = Behind(lambda: run(cursor, "UPDATE users SET balance = balance + 1"))
        behind.thread.join(0.3)
        assert behind.thread.is_alive()
        here.hand(here.moving(move(Phase.OPEN), map=MOVED))
        here.hand(here.snapshot)
        held.execute("ROLLBACK")
        assert behind.result() == 4
    assert (balance(here.primary(0), MOVING), balance(here.primary(1), OTHER)) == (101, 101)


def test_a_worker_takes_no_map_that_gives_a_shard_another_place(here: WorkerHere) -> None:
    swapped = replace(here.snapshot, shards=here.snapshot.shards[::-1])
    with pytest.raises(ValueError, match="no shard shard1 in the place"):
        here.on_loop(here.worker.front.gateway.adopt, swapped)


@pytest.mark.parametrize("times", [2, 50])
def test_a_deadlock_of_the_probe_says_nothing_about_the_server(
    here: WorkerHere, cursor: Any, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """What is tried once a server, before it takes part in a transaction over several, may meet others' locks."""
    refused = ("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'",)
    left = iter(range(times))

    def texts(name: str) -> tuple[str, ...]:
        return probe_texts(name) if next(left, None) is None else refused

    monkeypatch.setattr(transaction, "probe_texts", texts)
    here.worker.front.gateway.verified.clear()
    cursor.execute("BEGIN")
    cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {STAYING}")
    if times == 2:
        cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {OTHER}")
        cursor.execute("COMMIT")
        assert balance(here.primary(1), OTHER) == 1
    else:
        with pytest.raises(pymysql.MySQLError, match="try again; the server says: Deadlock found"):
            cursor.execute(f"UPDATE users SET balance = 1 WHERE uid = {OTHER}")
