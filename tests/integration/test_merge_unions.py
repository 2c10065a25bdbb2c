"""UNION of two shards beside one lone server that holds all rows."""

from __future__ import annotations

import pytest

from tests.integration.merging import Both, answers, same
from tests.wire import Refused

UNITED = [
    "SELECT id, few FROM things UNION ALL SELECT id, kind FROM entries",
    "SELECT id, 'thing' AS what FROM things WHERE few > 3 UNION ALL SELECT id, 'an entry' FROM entries WHERE kind = 1",
    "SELECT * FROM entries WHERE kind < 4 UNION ALL (SELECT * FROM entries WHERE amount > 0)",
    "SELECT i8 FROM things UNION ALL SELECT n FROM things UNION ALL SELECT g FROM things",
    "SELECT few FROM things UNION SELECT kind FROM entries",
    "SELECT few AS f FROM things UNION DISTINCT SELECT amount FROM entries ORDER BY f DESC",
    "SELECT few, e FROM things UNION SELECT kind, 'aa' FROM entries",
    "SELECT few FROM things UNION SELECT n FROM things ORDER BY 1 LIMIT 5, 11",
    "SELECT n, da FROM things UNION SELECT i8, dt FROM things ORDER BY 2 DESC, 1",
    "SELECT i32 AS a, few FROM things UNION ALL SELECT u64, i8 FROM things ORDER BY a, few LIMIT 40",
    "SELECT id, ti FROM things UNION ALL SELECT id, NULL FROM entries ORDER BY ti DESC, id LIMIT 30",
    "(SELECT t.few, l.amount FROM things t JOIN entries l ON t.id = l.id) UNION (SELECT kind, line FROM entries) "
    "ORDER BY amount, few",
    "SELECT bi FROM things WHERE bi > 'b' UNION SELECT bi FROM things WHERE few > 2 AND bi > 'aa' ORDER BY bi",
    "SELECT bi, few FROM things UNION ALL SELECT bi, i8 FROM things ORDER BY bi DESC, 2 LIMIT 30",
    "SELECT vb FROM things UNION SELECT bin FROM things ORDER BY 1",
    "SELECT kind + 1 AS k FROM entries UNION SELECT amount * 2 FROM entries WHERE kind = 3 ORDER BY k",
    "SELECT few FROM void UNION SELECT i8 FROM void ORDER BY 1",
    "SELECT id FROM things WHERE id = 3 UNION ALL SELECT id FROM entries WHERE id > 500",
    "SELECT COUNT(*) FROM things UNION ALL SELECT few FROM things",
    # by scratch tables
    "SELECT d FROM things UNION SELECT f FROM things ORDER BY 1",
    "SELECT e FROM things UNION SELECT s FROM things ORDER BY 1",
    "SELECT i8 FROM things UNION SELECT bi FROM things ORDER BY 1",
    "SELECT few FROM things UNION SELECT kind FROM entries UNION ALL SELECT 1 ORDER BY 1",
    "SELECT few FROM things UNION ALL SELECT ts FROM things ORDER BY 1",
    "SELECT y FROM things UNION SELECT few FROM things ORDER BY 1",
    "SELECT b FROM things UNION SELECT b FROM things ORDER BY 1",
]  # fmt: skip


@pytest.mark.parametrize("sql", UNITED)
def test_unions_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql, ordered="ORDER BY" in sql)


@pytest.mark.parametrize("column", ["g", "un", "np", "bi", "la", "c"])
def test_unions_tell_texts_apart_as_one_server_does(both: Both, column: str) -> None:
    """Which of several equal texts is shown is open, their number and order are not."""
    sql = f"SELECT {column} FROM things UNION SELECT {column} FROM things WHERE few > 2"
    with both.client() as client, both.lone() as lone:
        assert len(client.rows(sql)) == len(lone.rows(sql))
        for limit in ("3", "4, 6"):
            assert len(client.rows(f"{sql} ORDER BY 1 LIMIT {limit}")) == int(limit[-1])
        sql = f"SELECT {column} AS x, id FROM things UNION ALL SELECT {column}, id + 1 FROM things ORDER BY x DESC, id"
        assert [row[1] for row in client.rows(sql)] == [row[1] for row in lone.rows(sql)]


def test_unions_with_limit_alone_and_parameters(both: Both) -> None:
    with both.client() as client, both.lone() as lone:
        assert len(client.rows("SELECT id FROM things UNION ALL SELECT id FROM entries LIMIT 350, 100")) == 100
        sql = "SELECT few + ? FROM things WHERE id < ? UNION SELECT kind FROM entries WHERE id > ? ORDER BY 1 LIMIT ?"
        for parameters in ((1, 100, 300, 5), (2, 600, 0, 20), (0, 0, 0, 3)):
            assert answers(client, sql, True, parameters).rows == answers(lone, sql, True, parameters).rows
        for sql in ("SELECT id FROM things UNION SELECT id, few FROM things",
                    "SELECT id FROM things UNION SELECT nowhere FROM things",
                    "SELECT id FROM things UNION SELECT id FROM entries ORDER BY 2"):  # fmt: skip
            with pytest.raises(Refused) as theirs:
                lone.query(sql)
            with pytest.raises(Refused) as ours:
                client.query(sql)
            assert ours.value.code == theirs.value.code
