"""Texts of writes that are split by shard."""

from __future__ import annotations

import pytest

from shardproxy.planner.plan import KeyIn, Plan, Rung, Spread, Value
from shardproxy.planner.statement import plan_statement
from shardproxy.planner.write_plan import Limited, SplitRows
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from tests.unit.planner.world import context


def planned(sql: bytes) -> tuple[Plan, list[bytes]]:
    return plan_statement(sql, context()), scan(sql, SqlModes())[1]


def whole(rows: SplitRows, literals: list[bytes]) -> bytes:
    """The statement put together again."""
    each = [row.render(literals, (), shift).text for row, shift in rows.each()]
    tail = rows.tail.render(literals, (), rows.behind).text
    return b"".join((rows.head.render(literals).text, b", ".join(each), tail)).rstrip()


MANY = b", ".join(b"(%d, %d, 'x''%d')" % (i * 100, i, i) for i in range(40))


@pytest.mark.parametrize(
    "sql",
    [
        b"INSERT INTO items VALUES (1, 2, 3), (1001, -2, 3 + 4)",
        b"INSERT IGNORE INTO shop.items (oid, uid) VALUES (1, 2), ROW(3, 1004)",
        b"REPLACE items VALUE (1, 2, 3), (1001, 5, 6)",
        b"INSERT INTO items VALUES (1, 2, ?), (?, 5, 6) ON DUPLICATE KEY UPDATE amount = VALUES(amount) + 7",
        b"INSERT INTO items VALUES " + MANY,
        b"INSERT INTO items VALUES " + MANY + b", (5, 1 + 1, NULL), (6, 7, 8) ON DUPLICATE KEY UPDATE amount = 9",
    ],
)
def test_the_parts_make_up_the_statement(sql: bytes) -> None:
    plan, literals = planned(sql)
    assert plan.spread is Spread.WRITE
    assert plan.rung is Rung.MERGE
    assert isinstance(plan.write, SplitRows)
    assert whole(plan.write, literals) == sql
    [group] = plan.groups
    assert isinstance(group.condition, KeyIn)
    assert len(group.condition.values) == len(list(plan.write.each()))
    assert plan.write.ignores == (b"IGNORE" in sql)


def test_one_row_is_never_split() -> None:
    plan, _ = planned(b"INSERT INTO items VALUES (1, 2, 3)")
    assert plan.rung is Rung.ONE_SHARD


def test_a_number_of_rows() -> None:
    plan, literals = planned(b"DELETE FROM items WHERE amount > 5 LIMIT 10")
    assert isinstance(plan.write, Limited)
    assert plan.write.limit == Value(1)
    assert plan.write.text.render(literals).text == b"DELETE FROM items WHERE amount > 5 LIMIT "


@pytest.mark.parametrize(
    ("sql", "spread", "fixed_time"),
    [
        (b"UPDATE items SET amount = amount + 1", Spread.EACH, False),
        (b"UPDATE items SET amount = 1 ORDER BY oid", Spread.EACH, False),
        (b"UPDATE orders SET placed = NOW()", Spread.EACH, True),
        (b"DELETE FROM items WHERE EXISTS (SELECT 1 FROM users WHERE users.uid = items.uid)", Spread.EACH, False),
        (b"DELETE FROM items WHERE amount IN (SELECT total FROM orders)", Spread.REFUSE, False),
        (b"DELETE FROM items WHERE amount > (SELECT MAX(rate) FROM rates)", Spread.REFUSE, False),
        (b"DELETE FROM items ORDER BY oid LIMIT 3", Spread.REFUSE, False),
        (b"DELETE FROM items RETURNING oid", Spread.REFUSE, False),
        (b"UPDATE items SET amount = @a", Spread.EACH, False),
        (b"UPDATE items SET amount = (@a := amount)", Spread.REFUSE, False),
        (b"UPDATE items SET amount = GET_LOCK('a', 1)", Spread.REFUSE, False),
        (b"INSERT INTO items VALUES (1, 2, LAST_INSERT_ID()), (2, 3, 4)", Spread.SCRATCH, False),
    ],
)
def test_what_each_shard_may_do_by_itself(sql: bytes, spread: Spread, fixed_time: bool) -> None:
    plan, _ = planned(sql)
    assert (plan.spread, plan.fixed_time) == (spread, fixed_time)
    assert bool(plan.spread_error) == (spread is Spread.REFUSE)
