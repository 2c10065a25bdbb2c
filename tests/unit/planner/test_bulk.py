from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.planner import statement
from shardproxy.planner.bulk import shorten
from shardproxy.planner.plan import KeyIn, Plan, Rung
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from tests.unit.planner.world import context

ROWS = 40


def slowly(sql: bytes, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of the whole text, cut into tokens row by row."""
    with monkeypatch.context() as patch:
        patch.setattr(statement, "shorten", lambda *_: None)
        return plan_statement(sql, context())


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO items (uid, oid) VALUES " + b",".join(b"(%d, %d)" % (i, i * 7) for i in range(ROWS)),
        b"INSERT INTO items VALUES " + b" , ".join(b"(-%d,'x%d',NULL)" % (i, i) for i in range(ROWS)),
        b"insert ignore into `shop`.`items` ( `oid` , `uid` ) value " + b",\n".join([b"(?, ?)"] * ROWS),
        b"REPLACE INTO orders (id, uid) VALUES " + b",".join(b"(%d, %d)" % (i, i) for i in range(1, ROWS)),
        b"INSERT INTO items VALUES " + b",".join([b"(1,2,3)"] * ROWS) + b" ON DUPLICATE KEY UPDATE amount = 5, oid = 6",
        b"INSERT INTO items VALUES " + b",".join([b"(1,2,3)"] * ROWS) + b", (4, 5 + 6, 7), (-8, 9, 10)",
        b"INSERT INTO users (uid, name) VALUES " + b",".join([b"(1,'a''b')", b"(2,'c\\'d')"] * ROWS),
        b"INSERT INTO countries VALUES " + b",".join([b"(1,'a')"] * ROWS),
    ],
)
def test_the_plan_is_that_of_the_whole_text(sql: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shorten(sql, *scan(sql, SqlModes())) is not None
    plan, slow = plan_statement(sql, context()), slowly(sql, monkeypatch)
    assert slow.rung is not Rung.ERROR
    assert [group.condition for group in plan.groups] == [group.condition for group in slow.groups]
    assert (plan.kind, plan.nonzero, plan.spread, plan.digest_text) == (
        slow.kind,
        slow.nonzero,
        slow.spread,
        slow.digest_text,
    )


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO items VALUES (1,2,3),(1,2,3)",
        b"SELECT * FROM items WHERE uid IN (" + b",".join([b"1"] * 50) + b")",
        b"INSERT INTO items VALUES " + b",".join([b"(1, f(2), 3)"] * ROWS),
        b"INSERT INTO items VALUES " + b",".join([b"(1, /* c */ 2, 3)"] * ROWS),
        b"INSERT INTO items VALUES " + b",".join([b"(1, `oid`, 3)"] * ROWS),
        b"INSERT INTO items SET oid = 3, uid = 5",
        b"/* c */ INSERT INTO items VALUES " + b",".join([b"(1,2,3)"] * ROWS),
    ],
)
def test_others_are_planned_whole(sql: bytes) -> None:
    assert shorten(sql, *scan(sql, SqlModes())) is None


@given(
    st.lists(st.sampled_from([b"5", b"'a'", b"-7", b"NULL", b"?", b"1.5"]), min_size=1, max_size=4), st.integers(0, 3)
)
def test_values_of_any_row_are_found(row: list[bytes], more: int) -> None:
    rows = [b"(" + b", ".join(row) + b")"] * (ROWS + more)
    sql = b"INSERT INTO lone.x VALUES " + b",".join(rows) + b" ON DUPLICATE KEY UPDATE a = 9"
    digest, literals = scan(sql, SqlModes())
    short = shorten(sql, digest, literals)
    if not any(scan(value, SqlModes())[1] for value in row):
        assert short is None
        return
    assert short is not None
    assert short.sql == b"INSERT INTO lone.x VALUES " + rows[0] + b" ON DUPLICATE KEY UPDATE a = 9"
    assert short.repeats == len(rows) - 1


def test_a_hundred_thousand_rows_are_planned() -> None:
    sql = b"INSERT INTO items VALUES " + b",".join(b"(%d,%d,3)" % (i, i) for i in range(100_000))
    condition = plan_statement(sql, context()).groups[0].condition
    assert isinstance(condition, KeyIn)
    assert [value.index for value in condition.values] == list(range(0, 300_000, 3))
