"""Values as SQL, and statements cut to what a server takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import ReshardError
from shardproxy.protocol.mysql.text import text_row
from shardproxy.reshard.columns import ColumnShape, TableShape, text_row_literals
from shardproxy.reshard.link import Answer
from shardproxy.reshard.rows import STATEMENT_BYTES, Expected, deletes, inserts

TABLE = TableShape(
    "d",
    "t",
    (
        ColumnShape("id", "bigint", "bigint unsigned"),
        ColumnShape("name", "varchar", "varchar(9)", "utf8mb4", "utf8mb4_bin"),
        ColumnShape("doc", "json", "json"),
        ColumnShape("twice", "int", "int", generated=True),
        ColumnShape("u", "uuid", "uuid"),
    ),
    (0, 1),
    0,
)


def test_literals() -> None:
    rows = [text_row([b"7", b"it's", b'{"a": "\'"}', b"u"]), text_row([b"8", None, None, None])]
    assert text_row_literals(rows, TABLE.forms) == [
        b"(7,'it''s',_utf8mb4'{\"a\": \"''\"}',_latin1'u')",
        b"(8,NULL,NULL,NULL)",
    ]
    assert TABLE.primary_literal((b"7", b"a'b")) == b"(7,_utf8mb4'a''b')"
    assert TABLE.primary_row == b"(`id`,`name`)"
    assert TABLE.insert_head == b"INSERT INTO `d`.`t` (`id`,`name`,`doc`,`u`) VALUES "


def test_long_values_in_a_row() -> None:
    for length in (250, 251, 65535, 65536, 1 << 24):
        [literal] = text_row_literals([text_row([b"1", b"x" * length, None, None])], TABLE.forms)
        assert literal == b"(1,'" + b"x" * length + b"',NULL,NULL)"


def test_behind() -> None:
    assert TABLE.behind((b"7", b"a")) == b"`id` >= 7 AND ((`id` > 7) OR (`id` = 7 AND `name` > _utf8mb4'a'))"


@given(st.lists(st.integers(1, 400_000), max_size=30))
def test_statements_hold_every_row_once(sizes: list[int]) -> None:
    literals = [b"(" + b"%d" % i + b"x" * size + b")" for i, size in enumerate(sizes)]
    made = list(inserts(TABLE, literals, 1 << 30))
    assert sum(count for _, count in made) == len(literals)
    joined = b"".join(statement[-1].removeprefix(TABLE.insert_head) + b"," for statement, _ in made)
    assert joined == b"".join(literal + b"," for literal in literals)
    assert all(count == 1 or len(statement[-1]) <= STATEMENT_BYTES + 2000 for statement, count in made)


@given(st.binary(max_size=40_000), st.integers(0, 3))
def test_a_row_in_pieces(value: bytes, small: int) -> None:
    """Pieces put together give the value again, and none is longer than a packet."""
    most = 16_384
    literal = b"(1,'" + value.replace(b"'", b"''") + b"',_utf8mb4'" + b"{}" * small + b"',NULL)"
    [(statements, count)] = list(inserts(TABLE, [literal], most))
    assert count == 1
    assert all(len(statement) <= most for statement in statements) or len(literal) < most
    together: dict[bytes, bytes] = {}
    for statement in statements[:-1]:
        if statement.startswith(b"SET ") and b"CONCAT" in statement:
            name, _, part = statement[4:].partition(b" = CONCAT(")
            text = part.partition(b", '")[2].removesuffix(b"')")
            together[name] = together.get(name, b"") + text.replace(b"''", b"'")
    if together:
        assert together == {b"@_shardproxy_value_1": value}
        assert statements[-1].endswith(b"(1,@_shardproxy_value_1,_utf8mb4'" + b"{}" * small + b"',NULL)")
    else:
        assert statements == [TABLE.insert_head + literal]


def test_deletes() -> None:
    made = list(deletes(TABLE, [b"(%d,'a')" % i for i in range(2500)]))
    assert [count for _, count in made] == [1000, 1000, 500]
    assert list(deletes(TABLE, [b"(1,'a')"])) == [(b"DELETE FROM `d`.`t` WHERE (`id`,`name`) = (1,'a')", 1)]


def test_answers_are_checked() -> None:
    expected = Expected()
    expected.delete(TABLE, [b"(1,'a')", b"(2,'b')"])
    expected.insert(TABLE, [b"(1,'a',NULL,NULL)"], 1 << 20)
    expected.check([Answer(2), Answer(1)])
    with pytest.raises(ReshardError, match="2 rows were to be deleted on the target, and 1 were"):
        expected.check([Answer(1), Answer(1)])
    with pytest.raises(ReshardError, match="1 rows were to be inserted on the target, and 0 were"):
        expected.check([Answer(2), Answer(0)])
    with pytest.raises(ReshardError, match="did not take rows as they are"):
        expected.check([Answer(2), Answer(1, warnings=1)])
