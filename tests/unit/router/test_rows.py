from __future__ import annotations

import pytest

from shardproxy.errors import RouteError
from shardproxy.planner.key_values import key_value
from shardproxy.planner.plan import KeyIn
from shardproxy.planner.statement import plan_statement
from shardproxy.router.rows import place
from shardproxy.sql.digest import scan
from shardproxy.sql.modes import SqlModes
from tests.unit.planner.world import context


def placed(sql: bytes) -> list[int]:
    plan = plan_statement(sql, context())
    literals = scan(sql, SqlModes())[1]
    [group] = plan.groups
    assert isinstance(group.condition, KeyIn)
    return place(
        plan,
        group.condition.values,
        group.keyspace,
        lambda value, kind: key_value(literals[value.index], value.negative, kind, SqlModes()),
    )


def test_each_row_has_its_shard() -> None:
    assert placed(b"INSERT INTO items VALUES (1, 2, 3), (1001, 2, 3), (999, 2, 3), (1999, 2, 3)") == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("row", "code"),
    [(b"(5000, 1, 1)", 9101), (b"('abc', 1, 1)", 9101), (b"(99999999999999999999, 1, 1)", 1264)],
)
def test_a_row_that_cannot_be_placed(row: bytes, code: int) -> None:
    with pytest.raises(RouteError) as raised:
        placed(b"INSERT INTO items VALUES (1, 2, 3), " + row)
    assert raised.value.code == code
