"""Writers that do to a source whatever an application may do: also XA branches, with and without their connection."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import Any

import pymysql

from shardproxy.local import LocalServer

# Deadlock, lock wait, duplicate key; XA of a branch that was rolled back for a deadlock.
_NORMAL = {1205, 1213, 1062, 1402, 1613, 1614, 3101, 1317}

TABLES = (
    """CREATE TABLE account (
        id BIGINT NOT NULL PRIMARY KEY, k INT NOT NULL, u VARCHAR(40) COLLATE utf8mb4_bin UNIQUE,
        v INT NOT NULL, note VARCHAR(300), made DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
        twice INT AS (v * 2) STORED, KEY (k)) ENGINE = InnoDB""",
    """CREATE TABLE entry (
        name VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL, n SMALLINT NOT NULL, k INT NOT NULL,
        amount DECIMAL(12,3), t TIME(2), PRIMARY KEY (name, n)) ENGINE = InnoDB""",
)
KEYS = (("account", "k"), ("entry", "k"))
_NAMES = ("Zoë", "zoe", "ÄB", "ab", "Ab ", "straße", "x'y", "back\\slash", "", "日本", "a", "B", "é", "E", "z%_")


class Traffic:
    """`writers` threads until `stop`. Raises what was not to be expected, at `stop`."""

    def __init__(self, source: LocalServer, database: str, writers: int, seed: int, rows: int = 2000) -> None:
        self.errors: list[BaseException] = []
        self.done = 0
        self._source = source
        self._database = database
        self._rows = rows
        self._end = threading.Event()
        self._looking = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(seed * 1000 + number)))
            for number in range(writers)
        ]

    def fill(self) -> None:
        with self._connect() as connection, connection.cursor() as cursor:
            for start in range(0, self._rows, 1000):
                values = ",".join(
                    f"({i * 2}, {i % 311}, 'u{i}', {i}, REPEAT('n', {i % 200}))"
                    for i in range(start, min(start + 1000, self._rows))
                )
                cursor.execute(f"INSERT INTO account (id, k, u, v, note) VALUES {values}")
            entries = [(name, n, (n * 7) % 311) for n in range(0, 60, 2) for name in {n.strip() for n in _NAMES}]
            for name, n, k in entries:
                with suppress(pymysql.err.IntegrityError):
                    cursor.execute("INSERT INTO entry VALUES (%s, %s, %s, 1.5, '-00:00:00.25')", (name, n, k))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the writers, and resolve every branch that they left."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._resolve()
        if self.errors:
            raise self.errors[0]

    def _connect(self) -> Any:
        return self._source.connect(self._database)

    def _run(self, number: int, dice: random.Random) -> None:
        connection = self._connect()
        try:
            while not self._end.is_set():
                try:
                    connection = self._once(connection, number, dice)
                    self.done += 1
                except pymysql.err.MySQLError as error:
                    if error.args[0] not in _NORMAL:
                        raise
                    with suppress(pymysql.err.Error):
                        connection.close()
                    connection = self._connect()
        except BaseException as error:
            self.errors.append(error)

    def _once(self, connection: Any, number: int, dice: random.Random) -> Any:
        cursor = connection.cursor()
        what = dice.random()
        if what < 0.5:
            self._change(cursor, dice)
        elif what < 0.75:
            cursor.execute("BEGIN")
            for _ in range(dice.randrange(1, 6)):
                self._change(cursor, dice)
            cursor.execute("COMMIT" if dice.random() < 0.85 else "ROLLBACK")
        elif what < 0.98:
            return self._branch(connection, number, dice)
        else:
            low = dice.randrange(self._rows * 2)
            cursor.execute("UPDATE account SET v = v + 1 WHERE id BETWEEN %s AND %s", (low, low + 300))
        return connection

    def _branch(self, connection: Any, number: int, dice: random.Random) -> Any:
        thread = connection.thread_id()
        xid = f"'w{number}-{dice.getrandbits(48):x}','{thread}'"
        cursor = connection.cursor()
        cursor.execute(f"XA START {xid}")
        for _ in range(dice.randrange(1, 4)):
            self._change(cursor, dice)
        cursor.execute(f"XA END {xid}")
        if dice.random() < 0.1:
            cursor.execute(f"XA COMMIT {xid} ONE PHASE")
            return connection
        cursor.execute(f"XA PREPARE {xid}")
        if dice.random() < 0.3:
            time.sleep(dice.random() * 0.05)
        verb = "COMMIT" if dice.random() < 0.8 else "ROLLBACK"
        if dice.random() < 0.2:
            connection.close()
            connection = self._connect()
            self._detached(connection, thread, f"XA {verb} {xid}")
            return connection
        cursor.execute(f"XA {verb} {xid}")
        return connection

    def _detached(self, connection: Any, thread: int, sql: str) -> None:
        """The outcome of a branch whose connection is gone: the server may need a moment to see that."""
        with self._looking:  # one at a time: who looks keeps the picture from being made anew
            until = time.monotonic() + 10
            while _holds(connection, thread):
                assert time.monotonic() < until, f"connection {thread} does not end"
                time.sleep(0.11)  # InnoDB makes a new picture when nobody has looked for 0.1 s
        while True:
            try:
                connection.cursor().execute(sql)
                return
            except pymysql.err.MySQLError as error:
                if error.args[0] != 1397 or time.monotonic() > until:
                    raise
                time.sleep(0.002)

    def _change(self, cursor: Any, dice: random.Random) -> None:
        what = dice.randrange(11)
        identity = dice.randrange(self._rows * 2)
        name, n = dice.choice(_NAMES), dice.randrange(60)
        if what <= 1:
            cursor.execute("UPDATE account SET v = v + 1, note = REPEAT('m', v %% 250) WHERE id = %s", (identity,))
        elif what == 2:
            row = (identity, dice.randrange(311), f"u{dice.randrange(10**6)}", dice.randrange(100))
            cursor.execute("INSERT INTO account (id, k, u, v) VALUES (%s, %s, %s, %s)", row)
        elif what == 3:
            cursor.execute("DELETE FROM account WHERE id = %s", (identity,))
        elif what == 4:  # moves in or out
            cursor.execute("UPDATE account SET k = %s WHERE id = %s", (dice.randrange(311), identity))
        elif what == 5:  # the primary key changes
            cursor.execute("UPDATE account SET id = %s WHERE id = %s", (dice.randrange(self._rows * 2), identity))
        elif what == 6:  # a unique value changes hands
            cursor.execute("SELECT u FROM account WHERE id = %s", (identity,))
            row = cursor.fetchone()
            if row is not None:
                other = dice.randrange(self._rows * 2)
                cursor.execute("UPDATE account SET u = NULL WHERE id = %s", (identity,))
                cursor.execute("UPDATE account SET u = %s WHERE id = %s", (row[0], other))
        elif what == 7:
            cursor.execute(
                "INSERT INTO entry VALUES (%s, %s, %s, %s, %s)",
                (
                    name,
                    n,
                    dice.randrange(311),
                    dice.randrange(10**6) / 1000,
                    dice.choice(["-00:00:00.50", "838:59:59"]),
                ),
            )
        elif what == 8:
            cursor.execute("DELETE FROM entry WHERE name = %s AND n = %s", (name, n))
        elif what == 9:
            sql = "UPDATE entry SET name = %s, amount = amount + 1 WHERE name = %s AND n = %s"
            cursor.execute(sql, (dice.choice(_NAMES), name, n))
        else:
            sql = "REPLACE INTO entry VALUES (%s, %s, %s, NULL, NULL)"
            cursor.execute(sql, (name, n, dice.randrange(311)))

    def _resolve(self) -> None:
        with self._connect() as connection, connection.cursor() as cursor:
            cursor.execute("XA RECOVER")
            for format_id, first, second, data in cursor.fetchall():
                raw = data if isinstance(data, bytes) else data.encode()
                gtrid, bqual = raw[:first], raw[first : first + second]
                sql = f"XA ROLLBACK X'{gtrid.hex()}',X'{bqual.hex()}',{format_id}"
                self._detached(connection, int(bqual), sql)


def _holds(connection: Any, thread: int) -> bool:
    """Whether MariaDB's engine may still hold a branch for a connection that ends. Who gives the branch its outcome
    then loses it, on the source alone (`shardproxy.backend.engine_hold`)."""
    if "MariaDB" not in connection.get_server_info():
        return False
    mark = f"/* {time.monotonic_ns()} of {threading.get_ident()} */"
    with connection.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        cursor.execute(f"{mark} SELECT trx_mysql_thread_id, trx_query FROM information_schema.innodb_trx")
        rows = cursor.fetchall()
        cursor.execute("COMMIT")
    is_new = any((query or "").startswith(mark) for _, query in rows)
    return not is_new or any(holder == thread for holder, _ in rows)
