from __future__ import annotations

import pytest

from shardproxy.planner.bounds import KeyBounds, key_bounds
from shardproxy.topology.keys import KeyType, KeyValue
from shardproxy.topology.schema import Column
from tests.unit.planner.world import column


def bounds(column_type: str, key_type: KeyType) -> KeyBounds:
    found = key_bounds("t", column("k", column_type), key_type)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("column_type", "low", "high"),
    [
        ("tinyint", -128, 127),
        ("tinyint(3) unsigned", 0, 255),
        ("smallint", -32768, 32767),
        ("mediumint unsigned", 0, 2**24 - 1),
        ("int(11)", -(2**31), 2**31 - 1),
        ("bigint", -(2**63), 2**63 - 1),
        ("bigint(20) unsigned zerofill", 0, 2**64 - 1),
    ],
)
def test_integers_fit_their_column(column_type: str, low: int, high: int) -> None:
    found = bounds(column_type, KeyType.INT)
    assert [found.problem(value) for value in (low, 0, high)] == ["", "", ""]
    assert found.problem(low - 1) == f"t.k cannot hold {low - 1}: it stores {low} to {high}"
    assert found.problem(high + 1)


@pytest.mark.parametrize(
    ("column_type", "key_type", "fits", "too_long"),
    [
        ("varchar(3)", KeyType.TEXT, "éé€".encode(), b"abcd"),
        ("char(3)", KeyType.TEXT, b"", b"abcd"),
        ("tinytext", KeyType.TEXT, b"x" * 255, b"x" * 256),
        ("varbinary(3)", KeyType.BINARY, b"\xff\xfe\xfd", b"abcd"),
        ("binary(3)", KeyType.BINARY, b"abc", b"ab"),
        ("tinyblob", KeyType.BINARY, b"x" * 255, b"x" * 256),
    ],
)
def test_strings_fit_their_column(column_type: str, key_type: KeyType, fits: KeyValue, too_long: KeyValue) -> None:
    found = bounds(column_type, key_type)
    assert found.problem(fits) == ""
    assert found.problem(too_long).startswith("t.k holds")


def test_texts_have_only_characters_of_their_columns_character_set() -> None:
    for charset, lost in (("ascii", "é"), ("utf8mb3", "\N{GRINNING FACE}"), ("utf8mb4", "")):
        column_of = Column("k", "varchar", "varchar(3)", charset=charset)
        found = key_bounds("t", column_of, KeyType.TEXT)
        assert found is not None
        assert found.problem(b"abc") == ""
        assert not lost or found.problem(lost.encode()).endswith(f"its character set is {charset}")
        assert charset == "ascii" or found.problem("é€".encode()) == ""


@pytest.mark.parametrize(
    ("column_type", "key_type"),
    [
        ("varchar(3)", KeyType.INT),
        ("decimal(10,0)", KeyType.INT),
        ("int", KeyType.TEXT),
        ("binary(3)", KeyType.TEXT),
        ("blob", KeyType.TEXT),
        ("text", KeyType.BINARY),
        ("enum('a')", KeyType.TEXT),
        ("double", KeyType.INT),
    ],
)
def test_other_types_are_no_keys(column_type: str, key_type: KeyType) -> None:
    assert key_bounds("t", column("k", column_type), key_type) is None
