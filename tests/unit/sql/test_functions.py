from __future__ import annotations

from itertools import combinations

import pytest

from shardproxy.sql import functions


@pytest.mark.parametrize(
    ("one", "other"),
    list(combinations(("PLAIN", "CLOCK", "RANDOM", "SESSION", "LOCKS", "SERVER", "AGGREGATES", "NOT_CALLED"), 2)),
)
def test_a_function_has_one_kind(one: str, other: str) -> None:
    assert not getattr(functions, one) & getattr(functions, other)


def test_names_are_lower_case() -> None:
    assert all(name == name.lower() for name in functions.BUILT_IN | functions.RESERVED | functions.NOT_CALLED)


@pytest.mark.parametrize(
    "name", ["json_extract", "st_astext", "uuid_to_bin", "natural_sort_key", "date_format", "crc32"]
)
def test_both_servers_functions_are_known(name: str) -> None:
    assert name in functions.PLAIN
