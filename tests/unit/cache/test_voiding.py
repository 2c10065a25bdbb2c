"""What a transaction has changed, as it grows."""

from __future__ import annotations

from shardproxy.cache.patterns import CachedRows
from shardproxy.cache.voiding import Due

USERS, KINDS = (CachedRows(name, name + ":{id}", "main", name, "json", 1000, 0) for name in ("users", "kinds"))


def test_rows_are_remembered_once_and_not_beside_their_table() -> None:
    due = Due()
    assert not due
    for number in (1, 2, 1):
        due.add_row(USERS, [number])
        due.add_row(KINDS, [number])
    assert due and sorted(due.rows) == [b"kinds:1", b"kinds:2", b"users:1", b"users:2"]
    due.add_whole(USERS)
    due.add_row(USERS, [3])
    assert sorted(due.rows) == [b"kinds:1", b"kinds:2"] and due.whole == {"users"}


def test_what_is_sent_does_not_change_any_more() -> None:
    due = Due()
    due.add_row(USERS, [1])
    sent = due.copy()
    due.clear()
    due.add_whole(KINDS)
    assert list(sent.rows) == [b"users:1"] and not sent.whole
    assert not due.rows and due.whole == {"kinds"}


def test_many_rows_are_the_table() -> None:
    due = Due()
    due.add_row(KINDS, [1])
    for number in range(1001):
        due.add_row(USERS, [number])
    assert not due.rows and due.whole == {"users", "kinds"}
    due.add_row(USERS, [5])
    assert not due.rows
