"""A client of the proxy and one of a lone server with the same rows, who say the same things."""

from __future__ import annotations

from typing import Any

import pymysql

from shardproxy.local import LocalServer
from tests.proxy import SPLIT, ProxyUnderTest

FAR = SPLIT + 1  # a key on the second shard
TABLES = ("users", "orders", "countries", "settings")
FILL = (
    f"INSERT INTO users VALUES (1, 'a', 10), ({FAR}, 'b', 20), (2, 'c', 30), ({FAR + 1}, 'd', 40), (3, 'e', 50)",
    f"INSERT INTO orders VALUES (1, 1, 1.5), (1, 2, 2.5), ({FAR}, 1, 3.5), (2, 7, 4), ({FAR + 1}, 9, 5)",
)


class Sides:
    """A client of the proxy and one of the lone server, who say the same things."""

    def __init__(self, proxy: ProxyUnderTest, lone: LocalServer, **options: Any) -> None:
        self.proxy = proxy
        self.here = proxy.connect(**options)
        self.there = pymysql.connect(
            host="127.0.0.1", port=lone.port, user=lone.admin_user, password=lone.admin_password, database="main",
            autocommit=None, ssl_disabled=True, **options,
        )  # fmt: skip

    def close(self) -> None:
        self.here.close()
        self.there.close()

    def both(self, sql: str, parameters: tuple[Any, ...] | None = None) -> Any:
        """Run it on both sides; what the client sees must be equal. Gives it."""
        answers = [answer(side, sql, parameters) for side in (self.here, self.there)]
        assert answers[0] == answers[1], (sql, *answers)
        return answers[0]

    def same(self, *sqls: str) -> None:
        """Run them on both sides, one after the other, and compare the tables' contents after each."""
        for sql in sqls:
            self.both(sql)
            self.compare(sql)

    def rows_of(self, sql: str) -> Any:
        """The rows of a query, the same on both sides."""
        here, there = (rows(side, sql) for side in (self.here, self.there))
        assert here == there, sql
        return here

    def compare(self, after: str) -> None:
        for table in TABLES:
            query = f"SELECT * FROM {table}"
            here, there = (sorted(rows(side, query)) for side in (self.here, self.there))
            assert here == there, (after, table)


def answer(side: Any, sql: str, parameters: tuple[Any, ...] | None) -> Any:
    """What the client sees of a statement: its counts, message and warnings, or its error."""
    with side.cursor() as cursor:
        try:
            cursor.execute(sql, parameters)
        except pymysql.MySQLError as error:
            return error.args
        result = cursor._result
        message = (result.message or b"") if not result.has_next else b""
        cursor.execute("SHOW WARNINGS")
        # The order of warnings about rows of several shards is theirs only where they name their rows.
        return (result.affected_rows, result.insert_id, message, result.warning_count, sorted(cursor.fetchall()))


def rows(side: Any, sql: str) -> list[Any]:
    with side.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
