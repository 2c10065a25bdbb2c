"""Merged answers of two shards beside one lone server that holds all rows: values, order, column definitions."""

from __future__ import annotations

import math

import pytest

from tests.integration.merging import Both, answers, quoted, same, shape
from tests.proxy import ProxyUnderTest
from tests.wire import RawClient, Refused, Result

SORTED_BY = [
    "i8", "u8", "i32", "u64", "z", "f", "d", "n", "n9", "b", "g", "un", "np", "bi", "la", "c", "tx", "bin", "vb", "e",
    "s", "da", "ti", "dt", "ts", "y",
]  # fmt: skip


@pytest.mark.parametrize("direction", ["", " DESC"])
def test_order_by_each_type(both: Both, direction: str) -> None:
    for column in SORTED_BY:
        same(both, f"SELECT id, {column} FROM things ORDER BY {column}{direction}, id")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM things ORDER BY few, g DESC, id LIMIT 20",
        "SELECT id FROM things ORDER BY few DESC, un, d DESC, id LIMIT 7, 40",
        "SELECT id, UPPER(g)  AS  up, i8 + i32 FROM things ORDER BY up, 3 DESC, id",
        "SELECT id, CONCAT(un, 'x') FROM things ORDER BY CONCAT(un, 'x'), id",
        "SELECT id, CONCAT(np, '') FROM things ORDER BY CONCAT(np, ''), id DESC",
        "SELECT id FROM things ORDER BY n * 2 - 1, i8 IS NULL, id",
        "SELECT id FROM things ORDER BY d / 3, id",
        "SELECT id FROM things ORDER BY IFNULL(da, dt), id",
        "SELECT id FROM things ORDER BY COALESCE(vb, bin), id",
        "SELECT id, la FROM things ORDER BY la COLLATE latin1_german1_ci, id",
        "SELECT t.*, l.amount FROM things t JOIN entries l ON t.id = l.id ORDER BY l.amount, l.line",
        "SELECT l.amount, t.g FROM entries l LEFT JOIN things t ON t.id = l.id WHERE l.kind > 2 ORDER BY t.g, l.line",
        "SELECT g AS id, id AS g FROM things ORDER BY g",
        "SELECT id FROM things ORDER BY id LIMIT 0",
        "SELECT id FROM things ORDER BY id LIMIT 3 OFFSET 1000",
        "SELECT id FROM things ORDER BY id DESC LIMIT 18446744073709551615 OFFSET 290",
        "SELECT * FROM void ORDER BY g, CONCAT(g, un)",
        "SELECT a.id, b.line FROM things a, entries b WHERE a.id = b.id ORDER BY b.line",
        "SELECT *, few + 1 FROM things ORDER BY few + 1, id LIMIT 30",
        "SELECT id, COUNT(*), AVG(amount) FROM entries GROUP BY id HAVING COUNT(*) > 3 ORDER BY SUM(amount) DESC, id",
        "SELECT id, GROUP_CONCAT(amount ORDER BY line) FROM entries GROUP BY id ORDER BY COUNT(DISTINCT kind), id",
        "SELECT DISTINCT few FROM things ORDER BY few DESC",
        "SELECT DISTINCT few, e FROM things ORDER BY e, few DESC LIMIT 2, 9",
        "SELECT DISTINCT kind FROM entries ORDER BY kind",
    ],
)
def test_orderedanswers_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql)


@pytest.mark.parametrize(
    "sql",
    ["SELECT DISTINCT few, i8 FROM things", "SELECT DISTINCT n, da FROM things", "SELECT DISTINCT id, few FROM things"],
)
def test_distinct_rows(both: Both, sql: str) -> None:
    same(both, sql, ordered=False)


@pytest.mark.parametrize("column", ["g", "un", "np", "bi", "la", "c"])
def test_distinct_texts_are_as_many_as_on_one_server(both: Both, column: str) -> None:
    """Which of several equal ones is shown, one server does not say either."""
    with both.client() as client, both.lone() as lone:
        sql = f"SELECT DISTINCT {column} FROM things ORDER BY {column}"
        ours, theirs = client.rows(sql), lone.rows(sql)
        assert len(ours) == len(theirs)
        for [mine], [other] in zip(ours, theirs, strict=True):
            if mine is None or other is None:
                assert mine == other
                continue
            assert isinstance(mine, bytes)
            assert isinstance(other, bytes)
            both_there = " AND ".join(f"{column} = {quoted(text.decode())}" for text in (mine, other))
            [[count]] = lone.rows(f"SELECT COUNT(*) FROM things WHERE {both_there}")
            assert count != b"0", (mine, other)


def test_limit_without_order_gives_that_many_rows(both: Both) -> None:
    with both.client() as client:
        rows = client.rows("SELECT id, g FROM things LIMIT 170")
        assert len(rows) == 170 and len({row[0] for row in rows}) == 170
        assert len(client.rows("SELECT id FROM things LIMIT 290, 100")) == 10


def test_prepared_limits_and_values(both: Both) -> None:
    with both.client() as client, both.lone() as lone:
        sql = "SELECT id, few + ? FROM things WHERE few > ? ORDER BY few + ?, id LIMIT ? OFFSET ?"
        for parameters in ((1, 2, 1, 10, 3), (5, 0, -1, 100, 0)):
            assert answers(client, sql, True, parameters).rows == answers(lone, sql, True, parameters).rows


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM things ORDER BY nowhere",
        "SELECT nowhere FROM things ORDER BY id",
        "SELECT id FROM things ORDER BY 9",
        "SELECT DISTINCT few FROM things ORDER BY nowhere(few)",
        "SELECT t.id, l.id FROM things t JOIN entries l ON t.id = l.id ORDER BY UPPER(id)",
        "SELECT g FROM entries GROUP BY id, kind ORDER BY amount",
        "SELECT id FROM things ORDER BY id LIMIT 18446744073709551616 OFFSET 2",
        "SELECT id FROM things ORDER BY id LIMIT '2000' OFFSET 2",
    ],
)
def test_errors_are_those_of_the_clients_own_text(both: Both, sql: str) -> None:
    with both.client() as client, both.lone() as lone:
        with pytest.raises(Refused) as theirs:
            lone.query(sql)
        with pytest.raises(Refused) as ours:
            client.query(sql)
        assert ours.value.code in (theirs.value.code, 9100, 9101), (ours.value, theirs.value)
        assert "shp_" not in str(ours.value)
        assert client.rows("SELECT 1") == [[b"1"]]


AGGREGATED = [
    "SELECT COUNT(*) FROM things",
    "SELECT COUNT(*), COUNT(i8), SUM(i8), SUM(u64), SUM(n), AVG(i8), AVG(n), AVG(n9), AVG(i32) FROM things",
    "SELECT COUNT(i8), SUM(i8), AVG(n), MIN(g), MAX(da), BIT_AND(i8), BIT_OR(u8), BIT_XOR(i32) FROM void",
    "SELECT SUM(i8), MIN(i8), MAX(np) FROM things WHERE id = 3 OR id = 99999",
    "SELECT BIT_AND(u8), BIT_OR(i8), BIT_XOR(i32), BIT_AND(u64) FROM things WHERE i8 > 1",
    "SELECT few, AVG(n), AVG(n9), AVG(u64), AVG(few), AVG(n * n9), SUM(n * 2) FROM things GROUP BY few",
    "SELECT few AS k, COUNT(*) FROM things GROUP BY few ORDER BY few DESC LIMIT 3",
    "SELECT few AS k, COUNT(*) FROM things GROUP BY k ORDER BY k DESC LIMIT 1, 2",
    "SELECT e, few, COUNT(*) FROM things GROUP BY few, e ORDER BY e, few DESC",
    "SELECT few, COUNT(*) AS c FROM things GROUP BY few ORDER BY c DESC, few",
    "SELECT few, COUNT(*) FROM things GROUP BY few ORDER BY AVG(n), few",
    "SELECT few FROM things GROUP BY few ORDER BY MAX(np) DESC, few LIMIT 2 OFFSET 1",
    "SELECT COUNT(*), few FROM things GROUP BY 2 ORDER BY few",
    "SELECT YEAR(da) AS y4, COUNT(*), MIN(dt) FROM things GROUP BY YEAR(da) ORDER BY y4",
    "SELECT UPPER(bi) AS b2, COUNT(*) FROM things GROUP BY UPPER(bi) ORDER BY b2",
    "SELECT da, ti, COUNT(*) FROM things GROUP BY da, ti ORDER BY COUNT(*), da, ti",
    "SELECT l.kind, SUM(t.n), COUNT(*) FROM things t JOIN entries l ON t.id = l.id GROUP BY l.kind ORDER BY l.kind",
    "SELECT kind, AVG(amount)  AS  a FROM entries GROUP BY kind ORDER BY a, kind",
    "SELECT 'x', 5, COUNT(*) FROM entries",
    "SELECT few, e, COUNT(*) FROM things GROUP BY 1, 2 ORDER BY 3 DESC, 2, 1 LIMIT 7",
    "SELECT few + 1, SUM(n) FROM things GROUP BY 1 ORDER BY 2",
    "SELECT np, UPPER(bi), MAX(i8), COUNT(*) FROM things GROUP BY np, UPPER(bi) ORDER BY 3, 4 DESC, UPPER(bi), np",
    "SELECT id, UPPER(bi) FROM things GROUP BY id, UPPER(bi) ORDER BY UPPER(bi), id LIMIT 20",
    "SELECT few % 2, SUM(i8) FROM things GROUP BY few % 2 ORDER BY few % 2",
    *(f"SELECT few, MIN({c}), MAX({c}) FROM things GROUP BY few ORDER BY few" for c in (
        "i8", "u64", "f", "d", "n", "b", "bi", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y", "z")),
    *(f"SELECT {c}, COUNT(*) FROM things GROUP BY {c} ORDER BY {c}" for c in (
        "i8", "u64", "z", "d", "n", "b", "bi", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT few, id FROM things WHERE id < 520 GROUP BY 1, 2 ORDER BY 1, 2", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY 1", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY '1'", ()),
        ("SELECT few, COUNT(*) FROM things GROUP BY ?", (1,)),
        ("SELECT MAX(few), COUNT(*) FROM things GROUP BY '2'", ()),
    ],
)
def test_only_plain_numbers_are_positions(both: Both, sql: str, parameters: tuple[int, ...]) -> None:
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query("SET sql_mode = ''")
        first, other = (answers(c, sql, bool(parameters), parameters) for c in (client, lone))
        assert sorted(row[-1] or b"" for row in first.rows) == sorted(row[-1] or b"" for row in other.rows)


def test_an_error_behind_a_shards_first_rows_ends_the_answer(both: Both) -> None:
    with both.lone() as lone, both.client() as client:
        for sql in (
            "SELECT id, EXP(id * 10) FROM things ORDER BY id",
            "SELECT DISTINCT id, EXP(id * 10) FROM things ORDER BY id",
            "SELECT few, COUNT(*), MAX(EXP(id * 10)) FROM things GROUP BY few ORDER BY few",
        ):
            with pytest.raises(Refused) as theirs:
                lone.query(sql)
            with pytest.raises(Refused) as ours:
                client.query(sql)
            assert ours.value.code == theirs.value.code == 1690


@pytest.mark.parametrize("sql", AGGREGATED)
def test_groups_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql, ordered="ORDER BY" in sql or "GROUP BY" not in sql)


CHOSEN = [
    "SELECT COUNT(DISTINCT few) FROM things",
    "SELECT COUNT(DISTINCT few), SUM(DISTINCT few), AVG(DISTINCT few), COUNT(*), SUM(n), AVG(n9) FROM things",
    "SELECT COUNT(DISTINCT few, e), MIN(dt), MAX(np) FROM things",
    "SELECT COUNT(DISTINCT i8), SUM(DISTINCT i8), AVG(DISTINCT i8), MAX(g), BIT_AND(u8), BIT_OR(u8) FROM void",
    "SELECT COUNT(DISTINCT i8) AS c, SUM(few) FROM void HAVING c = 0 AND SUM(few) IS NULL",
    "SELECT COUNT(DISTINCT i8) AS c FROM void HAVING c > 0",
    "SELECT AVG(DISTINCT n), SUM(DISTINCT n), COUNT(DISTINCT n) FROM things WHERE id > 10",
    "SELECT few, COUNT(DISTINCT e), COUNT(*), MIN(dt), AVG(n) FROM things GROUP BY few ORDER BY few",
    "SELECT few, COUNT(DISTINCT i8) AS c FROM things GROUP BY few ORDER BY c DESC, few LIMIT 3",
    "SELECT e, SUM(DISTINCT n9), AVG(DISTINCT n9), COUNT(DISTINCT n9) FROM things GROUP BY e ORDER BY e DESC LIMIT 1",
    "SELECT few, COUNT(DISTINCT da, ti) FROM things GROUP BY few ORDER BY 2, 1",
    "SELECT few, COUNT(DISTINCT few), SUM(DISTINCT few) FROM things GROUP BY few ORDER BY few",
    "SELECT COUNT(DISTINCT few % 3), SUM(i8) FROM things",
    "SELECT MIN(DISTINCT n), MAX(DISTINCT da), COUNT(*) FROM things",
    *(f"SELECT few, COUNT(DISTINCT {c}) FROM things GROUP BY few ORDER BY few" for c in (
        "i8", "u64", "z", "n", "b", "g", "un", "np", "bi", "la", "c", "bin", "vb", "e", "s", "da", "ti", "dt", "y")),
    *(f"SELECT COUNT(DISTINCT {c}), COUNT({c}) FROM things" for c in (
        "i8", "u64", "n", "d", "ts", "b", "g", "un", "np", "bi", "la", "c", "tx", "bin", "e", "s", "UPPER(g)",
        "CONCAT(un, 'x')", "i8 + n", "da + INTERVAL 1 DAY")),
    "SELECT few, COUNT(*) FROM things GROUP BY few HAVING COUNT(*) > 40 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING SUM(n) > 0.5 AND AVG(i8) BETWEEN -100 AND 100 ORDER BY few",
    "SELECT few, AVG(few) FROM things GROUP BY few HAVING NOT (few IN (1, 2) OR few IS NULL) ORDER BY few DESC",
    "SELECT few AS f, COUNT(*) AS c FROM things GROUP BY few HAVING c <> 3 AND (f < 3 OR 4 <= f) ORDER BY c, f LIMIT 2",
    "SELECT kind, AVG(amount) FROM entries GROUP BY kind HAVING AVG(amount) < 1.2345 ORDER BY kind",
    "SELECT kind FROM entries GROUP BY kind HAVING COUNT(DISTINCT amount) >= 15 ORDER BY kind",
    "SELECT kind % 2 AS odd, MAX(amount) FROM entries GROUP BY odd HAVING odd = 1",
    "SELECT few, MIN(i8) FROM things GROUP BY few HAVING MIN(i8) = -128 AND MAX(i8) IS NOT NULL ORDER BY few",
    "SELECT COUNT(*) FROM things HAVING COUNT(*) = 300",
    "SELECT COUNT(*), MIN(few) FROM things HAVING COUNT(*) > 300.0",
    "SELECT 'x' FROM things HAVING SUM(few) > 1",
    "SELECT id, few FROM things HAVING few > 3 ORDER BY id LIMIT 8",
    # these go to scratch tables, some of them by what their columns turn out to be
    "SELECT few FROM things GROUP BY few HAVING SUM(d) > 1e3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING COUNT(*) > '40' ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(u64) > 3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MIN(g) > 3 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(z) > 999 ORDER BY few",
    "SELECT few FROM things GROUP BY few HAVING MAX(y) > 2000 ORDER BY few",
    "SELECT COUNT(DISTINCT few), COUNT(DISTINCT e) FROM things",
    "SELECT SUM(DISTINCT g), COUNT(DISTINCT g) FROM things WHERE g IN ('0', '9', '10')",
    "SELECT 5, COUNT(DISTINCT few) FROM void",
]  # fmt: skip


@pytest.mark.parametrize("sql", CHOSEN)
def test_distinct_values_and_having_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql, ordered="ORDER BY" in sql or "GROUP BY" not in sql)


@pytest.mark.parametrize("begin", ["", "BEGIN"])
def test_having_compares_with_parameters(both: Both, begin: str) -> None:
    sql = "SELECT few, COUNT(*) FROM things GROUP BY few HAVING COUNT(*) > ? AND few <> -? ORDER BY few"
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            if begin:
                connection.query(begin)
        ours, theirs = client.prepare(sql), lone.prepare(sql)
        for code, values in ((8, (40, 1)), (8, (0, -2)), (5, (39.5, 1.0)), (253, (b"40", b"3")), (8, (41, 0))):
            bound = [(code, False, value) for value in values]
            assert client.execute(ours, bound).rows == lone.execute(theirs, bound).rows, values


ROLLED_UP = [
    "SELECT few, COUNT(*), SUM(i8), AVG(n), MIN(vb), MAX(f), MIN(d), MAX(da), BIT_AND(u8), BIT_OR(u8), BIT_XOR(i32)"
    " FROM things GROUP BY few WITH ROLLUP",
    "SELECT e, few, da, COUNT(*), AVG(i8), MAX(dt) FROM things GROUP BY e, few, da WITH ROLLUP",
    "SELECT few AS k, t.e, AVG(n9), MIN(ti) FROM things t GROUP BY k, t.e WITH ROLLUP LIMIT 3, 11",
    "SELECT COUNT(*), SUM(u64) FROM things GROUP BY few, i8 WITH ROLLUP HAVING COUNT(*) > 2 AND SUM(u64) > 100 LIMIT 9",
    "SELECT SUM(i8) AS s, few FROM things GROUP BY few WITH ROLLUP HAVING s < 0 OR MIN(n) IS NULL",
    "SELECT id, COUNT(*), MAX(c) FROM things GROUP BY id WITH ROLLUP",
    "SELECT line, id, SUM(amount) FROM entries WHERE kind > 2 GROUP BY id, line WITH ROLLUP",
    "SELECT few, e, COUNT(*), SUM(i8), AVG(n), MIN(c), BIT_AND(u8) FROM void GROUP BY few, e WITH ROLLUP",
    "SELECT few, COUNT(DISTINCT e) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few, few, COUNT(*) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few, COALESCE(few, 'all'), COUNT(*) FROM things GROUP BY few WITH ROLLUP",
    "SELECT few + 1, COUNT(*) FROM things GROUP BY few + 1 WITH ROLLUP",
    "SELECT l.kind, SUM(t.n), COUNT(*) FROM things t JOIN entries l ON t.id = l.id GROUP BY l.kind WITH ROLLUP",
    *(f"SELECT {c}, COUNT(*), MIN({c}), MAX({c}) FROM things GROUP BY {c} WITH ROLLUP" for c in (
        "i8", "u64", "z", "d", "n", "b", "bin", "vb", "e", "s", "da", "ti", "dt", "ts", "y")),
]  # fmt: skip


@pytest.mark.parametrize("sql", ROLLED_UP)
def test_rolled_up_groups_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql)


def test_rollup_sorted_by_another_order_takes_another_way(both: Both) -> None:
    sql = "SELECT few, COUNT(*) FROM things GROUP BY few WITH ROLLUP ORDER BY 2, 1"
    if both.flavor == "mysql":
        same(both, sql)
        return
    with both.client() as client, pytest.raises(Refused) as refused:
        client.query(sql)
    assert refused.value.code == 1221


@pytest.mark.parametrize("parameter", [3, 40])
def test_rollup_with_parameters(both: Both, parameter: int) -> None:
    sql = "SELECT few, SUM(i8) FROM things WHERE id < ? GROUP BY few WITH ROLLUP HAVING COUNT(*) > 1 LIMIT ?"
    with both.client() as client, both.lone() as lone:
        ours, theirs = (answers(c, sql, True, (parameter, 5)) for c in (client, lone))
    assert (ours.rows, [shape(c) for c in ours.columns]) == (theirs.rows, [shape(c) for c in theirs.columns])


JOINED = [
    "SELECT few, GROUP_CONCAT(i8 ORDER BY i8) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(i8, '/', n ORDER BY i8 DESC, n SEPARATOR '\\n; '), COUNT(*), AVG(n), MAX(da) FROM things"
    " WHERE id < 560 GROUP BY few ORDER BY few DESC LIMIT 4",
    "SELECT GROUP_CONCAT(DISTINCT few ORDER BY few DESC SEPARATOR ''), COUNT(*), SUM(i8) FROM things",
    "SELECT e, GROUP_CONCAT(DISTINCT u8, few ORDER BY few DESC, u8) FROM things WHERE u8 > 9 GROUP BY e ORDER BY e",
    "SELECT e, GROUP_CONCAT(DISTINCT da ORDER BY da), COUNT(DISTINCT few) FROM things GROUP BY e ORDER BY e",
    "SELECT few, GROUP_CONCAT(vb ORDER BY vb), MIN(n) FROM things WHERE few < 9 GROUP BY few ORDER BY COUNT(*), few",
    "SELECT few, GROUP_CONCAT(t.e ORDER BY e DESC) FROM things t WHERE id < 590 GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY ti, id), GROUP_CONCAT(y ORDER BY ti, id) FROM things GROUP BY few"
    " ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY ts, id) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(id ORDER BY np, id), SUM(n) FROM things GROUP BY few HAVING COUNT(*) > 30 ORDER BY few",
    "SELECT kind, GROUP_CONCAT(amount ORDER BY amount) FROM entries GROUP BY kind ORDER BY kind",
    "SELECT GROUP_CONCAT(i8 ORDER BY i8), COUNT(*) FROM void",
    "SELECT GROUP_CONCAT(i8), JSON_ARRAYAGG(i8), COUNT(*) FROM void",
    "SELECT few, GROUP_CONCAT(few), JSON_ARRAYAGG(few) FROM things GROUP BY few ORDER BY few",
    "SELECT GROUP_CONCAT(c ORDER BY c) FROM things WHERE c IS NULL",
    "SELECT few, GROUP_CONCAT(CONCAT(id, '=', la), i8 + 1 ORDER BY id * 2 DESC) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(DISTINCT i8 % 7 ORDER BY i8 % 7 DESC) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(CONVERT(la USING utf16) ORDER BY id) FROM things GROUP BY few ORDER BY few",
    "SELECT few, GROUP_CONCAT(la ORDER BY id SEPARATOR '日') FROM things GROUP BY few ORDER BY few",
]  # fmt: skip


@pytest.mark.parametrize("sql", JOINED)
def test_texts_of_groups_in_order_are_those_of_one_server(both: Both, sql: str) -> None:
    same(both, sql)


@pytest.mark.parametrize("call", ["GROUP_CONCAT(i8)", "GROUP_CONCAT(DISTINCT bin)", "GROUP_CONCAT(la SEPARATOR 'é')",
                                  "JSON_ARRAYAGG(n)", "JSON_ARRAYAGG(bi)"])  # fmt: skip
@pytest.mark.parametrize("binary", [False, True])
def test_texts_of_groups_in_any_order_have_the_same_parts(both: Both, call: str, binary: bool) -> None:
    sql = f"SELECT few, {call} FROM things GROUP BY few ORDER BY few"
    with both.client() as client, both.lone() as lone:
        ours, theirs = answers(client, sql, binary), answers(lone, sql, binary)
    assert [shape(c) for c in ours.columns] == [shape(c) for c in theirs.columns]
    separator = "é".encode() if "é" in call else b", " if "JSON" in call and both.flavor == "mysql" else b","

    def parts(result: Result) -> list[list[object]]:
        texts = [(few, b"" if text is None else bytes(str(text), "utf-8", "surrogateescape")
                  if isinstance(text, str) else text) for few, text in result.rows]  # fmt: skip
        return [[few, sorted(text.strip(b"[]").split(separator))] for few, text in texts]  # type: ignore[union-attr]

    assert parts(ours) == parts(theirs)


@pytest.mark.parametrize("most", [20, 200, 500, 4000])
def test_texts_of_groups_are_cut_as_on_one_server(both: Both, most: int) -> None:
    sql = "SELECT few, GROUP_CONCAT(bi, id ORDER BY id) FROM things GROUP BY few ORDER BY few"
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query(f"SET group_concat_max_len = {most}")
        ours, theirs = client.query(sql), lone.query(sql)
        assert ours.rows == theirs.rows
        assert ours.ok.warnings == theirs.ok.warnings
        assert client.rows("SHOW COUNT(*) WARNINGS") == lone.rows("SHOW COUNT(*) WARNINGS")


def test_means_of_distinct_values_are_rounded_as_the_server_does(both: Both) -> None:
    """MySQL divides further there than for AVG of all values."""
    for i in (2, 3, 4, 5):
        expression = f"CAST(n9 AS DECIMAL(18,{i}))"
        for sql in (
            f"SELECT few, AVG(DISTINCT {expression}), AVG({expression}) FROM things GROUP BY few ORDER BY few",
            f"SELECT e, AVG(DISTINCT {expression}) FROM things GROUP BY e ORDER BY AVG(DISTINCT {expression}), e",
        ):
            same(both, sql)
    same(both, "SELECT few, AVG(DISTINCT n9), AVG(n9) FROM things GROUP BY few ORDER BY few")
    same(both, "SELECT e, AVG(DISTINCT n9) FROM things GROUP BY e HAVING AVG(DISTINCT n9) < 100 ORDER BY e")


def test_having_compares_means_as_the_server_does(both: Both) -> None:
    """MariaDB as they are shown, MySQL before they are rounded where it need not sort groups afterwards."""
    with both.lone() as lone, both.client() as client:
        shown = lone.rows("SELECT kind, AVG(amount) FROM entries GROUP BY kind ORDER BY kind")
        for _, mean in shown:
            assert isinstance(mean, bytes)
            for sign in ("<", "=", ">"):
                for tail in ("", " ORDER BY kind", " ORDER BY COUNT(*), kind", " ORDER BY AVG(amount), kind"):
                    sql = f"SELECT kind FROM entries GROUP BY kind HAVING AVG(amount) {sign} {mean.decode()}{tail}"
                    assert sorted(client.rows(sql), key=repr) == sorted(lone.rows(sql), key=repr), sql


def test_a_plan_is_not_taken_for_other_constants(both: Both) -> None:
    """Two expressions are equal in one statement and not in another that reads the same but for a number."""
    with both.client() as client, both.lone() as lone:
        for connection in (client, lone):
            connection.query("SET sql_mode = ''")
        for first, other in ((3, 3), (3, 2), (2, 3), (4, 4)):
            for sql in (
                f"SELECT few % {first} AS a, COUNT(*) FROM things GROUP BY few % {first}, few % {other} ORDER BY "
                f"few % {other}, few % {first}",
                f"SELECT COUNT(DISTINCT few % {first}), SUM(DISTINCT few % {other}) FROM things",
                f"SELECT few, SUM(i8 + {first}) FROM things GROUP BY few HAVING SUM(i8 + {other}) > 9 ORDER BY few",
            ):
                assert client.rows(sql) == lone.rows(sql), sql


@pytest.mark.parametrize("column", ["g", "un", "np", "la", "c"])
def test_groups_of_texts_count_alike(both: Both, column: str) -> None:
    """Which of several equal texts stands for the group is open, their numbers are not."""
    sql = f"SELECT MIN({column}) IS NULL, COUNT(*), SUM(i8), MAX(id) FROM things GROUP BY {column} ORDER BY {column}"
    with both.client() as client, both.lone() as lone:
        assert client.rows(sql) == lone.rows(sql)  # by scratch tables: an expression of an aggregate
        sql = sql.replace(f"MIN({column}) IS NULL, ", "")
        assert client.rows(sql) == lone.rows(sql)


def test_floating_sums_are_not_merged(both: Both) -> None:
    """Their last digits depend on the order in which they are added: that is left to one server."""
    sql = "SELECT SUM(d) FROM things"
    with both.client() as client, both.lone() as lone:
        [[mine]], [[theirs]] = client.rows(sql), lone.rows(sql)
        assert isinstance(mine, bytes)
        assert isinstance(theirs, bytes)
        assert math.isclose(float(mine), float(theirs), rel_tol=1e-12)


@pytest.mark.parametrize("begin", ["", "BEGIN"])
@pytest.mark.parametrize("sql", ["SELECT NOW(6), uid FROM users", "SELECT NOW(6), uid FROM users ORDER BY uid"])
def test_all_shards_have_one_time(proxy: ProxyUnderTest, sql: str, begin: str) -> None:
    with RawClient(proxy.port) as client:
        client.query("INSERT INTO users VALUES (1, 'a', 1), (1001, 'b', 2)")
        if begin:
            client.query(begin)
        times = {client.query(sql).rows[0][0] for _ in range(3)}
        assert len(times) == 3, "the clock goes on from statement to statement"
        rows = client.query(sql).rows
        assert len(rows) == 2
        assert rows[0][0] == rows[1][0]
        assert client.query("SELECT NOW(6) < NOW(6) + INTERVAL 1 SECOND, @@timestamp > 0 FROM users WHERE uid = 1").rows
