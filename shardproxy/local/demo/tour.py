"""The tour: statements sent through the proxy, where each went, and what came back; each is checked as it goes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import pymysql

from shardproxy.errors import LocalError
from shardproxy.local.cluster import LocalCluster
from shardproxy.local.demo.sample import BORDER, KEYSPACE, USERS, email_of
from shardproxy.local.demo.screen import Screen

USER = PASSWORD = "app"  # noqa: S105  (loopback only, gone with the demo)
NEW = USERS + 1  # uid of the user that the tour inserts
_MOST_ROWS = 6  # of a result that are shown


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client got: rows with their column names, or `affected` rows, or an error. seconds: until then."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    affected: int
    error: tuple[int, str] | None
    seconds: float


Check = Callable[[Outcome], bool]


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. shards, role: where it must go, () for nowhere; check: whether the outcome is right."""

    sql: str
    shards: tuple[str, ...]
    role: str
    check: Check
    note: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop of the tour: a few statements under one heading."""

    title: str
    steps: tuple[Step, ...]


class Visitor:
    """The tour's client connection, and the admin port that tells where statements go."""

    def __init__(self, mysql_port: int, admin_port: int) -> None:
        self._admin_port = admin_port
        self._connection = pymysql.connect(
            host="127.0.0.1", port=mysql_port, user=USER, password=PASSWORD, autocommit=True, charset="utf8mb4"
        )

    def close(self) -> None:
        self._connection.close()

    def run(self, sql: str) -> Outcome:
        """Send one statement. Only a server's or the proxy's own error is an outcome; a lost connection raises."""
        begun = perf_counter()
        with self._connection.cursor() as cursor:
            try:
                affected = cursor.execute(sql)
                rows = tuple(cursor.fetchall())
            except pymysql.err.MySQLError as error:
                if error.args[0] < 1000 or 2000 <= error.args[0] < 3000:
                    raise
                return Outcome((), (), 0, (error.args[0], error.args[1]), perf_counter() - begun)
            columns = tuple(column[0] for column in cursor.description or ())
        return Outcome(columns, rows, affected, None, perf_counter() - begun)

    def explain(self, sql: str) -> dict[str, Any]:
        """What `shardctl explain` shows, as JSON. Raises LocalError when the admin port does not answer so."""
        connection = http.client.HTTPConnection("127.0.0.1", self._admin_port, timeout=10)
        try:
            body = json.dumps({"sql": sql, "schema": KEYSPACE})
            connection.request("POST", "/api/explain", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise LocalError(f"POST /api/explain answered {response.status}: {data.decode(errors='replace')}")
        explained: dict[str, Any] = json.loads(data)
        return explained


def stops(cluster: LocalCluster) -> tuple[Stop, ...]:
    """The whole tour."""
    first, second = (shard.name for shard in cluster.shards)
    both = (first, second)
    replica_port = cluster.shards[0].replicas[0].port
    primary_port = cluster.shards[0].primary.port
    return (
        Stop("Insert: the row goes to the shard of its uid", (
            Step(
                f"INSERT INTO users VALUES ({NEW}, 'Joan Clarke', 'joan@example.com', 'GB', '2026-11-22')",  # noqa: S608
                (second,), "primary", affects(1),
            ),
        )),
        Stop("Point read: one key, one shard, on a replica", (
            Step("SELECT uid, name, country FROM users WHERE uid = 42", (first,), "replica", uids(42)),
        )),
        Stop("Replica read, or not: @@port tells which server answered", (
            Step(
                "SELECT uid, name, @@port AS answered_by FROM users WHERE uid = 42", (first,), "replica",
                lambda o: last_column(o) == [replica_port],
            ),
            Step(
                "SELECT /*shardproxy: primary*/ uid, name, @@port AS answered_by FROM users WHERE uid = 42",
                (first,), "primary", lambda o: last_column(o) == [primary_port],
                note="A replica may be a moment behind; the hint reads what is committed now.",
            ),
        )),
        Stop("Range read: as many shards as the range touches", (
            Step(
                "SELECT uid, name FROM users WHERE uid BETWEEN 100 AND 103", (first,), "replica",
                uids(*range(100, 104)),
            ),
            Step(
                f"SELECT uid, name FROM users WHERE uid >= {BORDER - 2} AND uid < {BORDER + 2}",  # noqa: S608
                both, "replica", uids(*range(BORDER - 2, BORDER + 2)),
            ),
        )),
        Stop("Scatter read: no key, so every shard is asked", (
            Step(
                f"SELECT uid, name, joined FROM users WHERE email IN ('{email_of(17)}', '{email_of(75_001)}')",  # noqa: S608
                both, "replica", uids(17, 75_001),
            ),
        )),
        Stop("Co-located join: a user's orders are on the user's shard", (
            Step(
                "SELECT u.uid, u.name, o.id, o.total FROM users u JOIN orders o ON o.uid = u.uid WHERE u.uid = 71",
                (first,), "replica", uids(71, 71, 71),
            ),
            Step(
                "SELECT COUNT(*) AS orders, SUM(total) AS total FROM orders WHERE uid = 71", (first,), "replica",
                lambda o: [row[0] for row in o.rows] == [3],
            ),
        )),
        Stop("Reference join: every shard has all countries", (
            Step(
                "SELECT u.uid, u.name, c.name AS country FROM users u JOIN countries c ON c.code = u.country "
                "WHERE u.uid IN (7, 70000)",
                both, "replica", uids(7, 70_000),
            ),
        )),
        Stop("Merge: the shards sort and count, the proxy makes one answer of it", (
            Step("SELECT uid, name FROM users ORDER BY uid DESC LIMIT 3", both, "replica", lambda o: len(o.rows) == 3),
            Step(
                "SELECT country, COUNT(*) FROM users GROUP BY country", both, "replica", lambda o: len(o.rows) > 1,
                note="Each shard counts its own users; equal countries are added up.",
            ),
        )),
        Stop("Transaction: on all shards or on none", (
            Step("BEGIN", (), "", affects(0), note="Reaches a server with the first statement that names a shard."),
            Step("SELECT name FROM users WHERE uid = 42 FOR UPDATE", (first,), "primary", lambda o: len(o.rows) == 1),
            Step("INSERT INTO orders VALUES (42, 9, 12.50, '2026-11-22')", (first,), "primary", affects(1)),
            Step(
                "UPDATE users SET country = 'FR' WHERE uid = 75001", (second,), "primary", affects(1),
                note="The other shard joins. COMMIT is atomic over both.",
            ),
            Step("COMMIT", (), "", affects(0)),
        )),
        Stop("What cannot be answered exactly gets an error, never a wrong answer", (
            Step(
                "SELECT COUNT(*), GET_LOCK('tour', 0) FROM users", (), "", fails(9101),
                note="Each server has named locks of its own: ask for the lock alone.",
            ),
        )),
    )  # fmt: skip


def affects(rows: int) -> Check:
    """No result set, and so many rows changed."""
    return lambda outcome: outcome.error is None and not outcome.columns and outcome.affected == rows


def uids(*expected: int) -> Check:
    """Rows whose first column has these values, in any order."""
    return lambda outcome: sorted(row[0] for row in outcome.rows) == sorted(expected)


def fails(code: int) -> Check:
    """An error with this number."""
    return lambda outcome: outcome.error is not None and outcome.error[0] == code


def last_column(outcome: Outcome) -> list[Any]:
    """The last value of each row."""
    return [row[-1] for row in outcome.rows]


def walk(screen: Screen, visitor: Visitor, tour: Sequence[Stop]) -> None:
    """Run every step and show it. Raises LocalError at the first that does not go as it must."""
    for number, stop in enumerate(tour, 1):
        screen.heading(f"{number}. {stop.title}")
        for step in stop.steps:
            explained = visitor.explain(step.sql)
            outcome = visitor.run(step.sql)
            _show(screen, step, explained, outcome)
            went = tuple(explained["shards"])
            if went != step.shards or (explained["role"] or "") != step.role:
                where = f"{', '.join(went) or 'nowhere'} ({explained['role']})"
                wanted = f"{', '.join(step.shards) or 'nowhere'} ({step.role or None})"
                raise LocalError(f"this statement of the tour must go to {wanted}, not to {where}: {step.sql}")
            if not step.check(outcome):
                raise LocalError(f"this statement of the tour must not get the answer {outcome}: {step.sql}")


def show_explain(screen: Screen, visitor: Visitor, sql: str, command: str) -> None:
    """One explanation in full; command: how to get the same from a shell."""
    screen.line(f"  {command}")
    explained = visitor.explain(sql)
    if explained["error"] is not None:
        raise LocalError(f"explain of {sql} gives {explained['error']}")
    screen.pairs([
        ("plan", f"{explained['opcode']} ({explained['kind']}), rung {explained['rung']}: {explained['rung_name']}"),
        ("because", explained["reason"]),
        ("goes to", f"{', '.join(explained['shards'])} ({explained['role']})"),
        ("sent", explained["sql"]),
    ])  # fmt: skip


def _show(screen: Screen, step: Step, explained: dict[str, Any], outcome: Outcome) -> None:
    screen.statement(step.sql)
    if explained["shards"]:
        screen.went(f"{', '.join(explained['shards'])} ({explained['role']}): {explained['reason']}")
    elif explained["error"] is None:
        screen.went(explained["reason"])  # BEGIN, COMMIT: to the server of the session's transaction, if any
    took = f"{outcome.seconds * 1000:.1f} ms"
    if outcome.error is not None:
        screen.error(f"ERROR {outcome.error[0]}: {outcome.error[1]}")
    elif outcome.columns:
        screen.table(outcome.columns, outcome.rows[:_MOST_ROWS])
        screen.plain(f"{len(outcome.rows)} row{'' if len(outcome.rows) == 1 else 's'} in {took}")
    else:
        screen.plain(f"ok, {outcome.affected} row{'' if outcome.affected == 1 else 's'} changed in {took}")
    if step.note:
        screen.note(step.note)
