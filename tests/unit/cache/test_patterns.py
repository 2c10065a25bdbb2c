"""Which keys are rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.cache.patterns import CachedRows, CacheSettings, Patterns
from shardproxy.config.rules import cross_check


def rows(pattern: str, name: str = "r", **changes: str) -> CachedRows:
    return CachedRows(name, pattern, "main", "t", changes.get("form", "json"), 1000, 0)


ORDERS = rows("orders:{uid}:{no}", "orders")
USERS = rows("user.{id}!", "users")
PATTERNS = Patterns((ORDERS, USERS))


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-(2**31), 2**31))
def test_a_rows_key_is_found_again(uid: int, no: int) -> None:
    assert PATTERNS.find(ORDERS.key((uid, no))) == (ORDERS, (uid, no))
    assert PATTERNS.find(USERS.key((uid,))) == (USERS, (uid,))


@pytest.mark.parametrize(
    "key",
    [b"orders:01:1", b"orders:1:", b"orders:-0:1", b"orders:+1:1", b"orders:1:1\n", b"orders: 1:1", b"orders:1:1:1"],
)
def test_another_spelling_is_no_row(key: bytes) -> None:
    assert PATTERNS.find(key) is None


def test_what_begins_like_a_row_belongs_to_no_node() -> None:
    assert PATTERNS.owns(b"orders:x") and PATTERNS.owns(b"user.")
    assert not PATTERNS.owns(b"order:1:1") and not PATTERNS.owns(b"")
    assert [near.name for near in PATTERNS.near(b"orders:x")] == ["orders"]


def test_proxies_that_differ_share_nothing() -> None:
    def digest(pattern: str, form: str = "json", bound: float = 1.0, placement: str = "p") -> str:
        return CacheSettings((rows(pattern, form=form),), 1.0, bound, 1.0, 1.0, placement).digest

    assert digest("a{x}") == digest("a{x}")
    others = digest("a{y}"), digest("a{x}", "hash"), digest("a{x}", bound=2.0), digest("a{x}", placement="q")
    assert len({digest("a{x}"), *others}) == 5


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ({"a": "users:{uid}"}, ""),
        ({"a": "users"}, "no {COLUMN} in it"),
        ({"a": "{uid}"}, "a column at its beginning"),
        ({"a": "u:{a}{b}"}, "two columns with nothing between them"),
        ({"a": "u:{a}:{a}"}, "a column twice"),
        ({"a": "u:{a}:}"}, "a brace that is of no {COLUMN}"),
        ({"a": "users:{uid}", "b": "users:by:{uid}"}, "another beginning than that of cache.rows.a"),
        ({"a": "users:by:{uid}", "b": "users:{uid}"}, "another beginning than that of cache.rows.a"),
    ],
)
def test_patterns_that_cannot_be_read(keys: dict[str, str], wrong: str) -> None:
    data = {
        "redis": {},
        "keyspaces": {"main": {}},
        "cache": {"rows": {name: {"key": key, "table": "main.users"} for name, key in keys.items()}},
    }
    found = [f"{p.found} {p.expected}" for p in cross_check(data) if p.path[:1] == ("cache",)]
    assert len(found) == bool(wrong)
    assert all(wrong in text for text in found)


def test_a_cache_needs_nodes_and_a_keyspace() -> None:
    data = {"cache": {"rows": {"a": {"key": "u:{a}", "table": "maim.users"}}}, "keyspaces": {"main": {}}}
    found = [p for p in cross_check(data) if p.path[:1] == ("cache",)]
    assert [p.path for p in found] == [("cache",), ("cache", "rows", "a", "table")]
    assert 'did you mean "main"' in found[1].expected
