from __future__ import annotations

import pytest

from shardproxy.merge.counts import duplicates, found, records, renumbered, row_of, summed


def test_infos_of_one_form_are_summed() -> None:
    infos = [b"Rows matched: 10  Changed: 2  Warnings: 1", b"", b"Rows matched: 3  Changed: 3  Warnings: 4"]
    assert summed(infos) == b"Rows matched: 13  Changed: 5  Warnings: 5"
    assert summed(infos, repeated=1) == b"Rows matched: 13  Changed: 5  Warnings: 4"
    assert summed([b"", b""]) == b""
    assert summed([]) == b""


@pytest.mark.parametrize(
    ("info", "affected", "ignored", "expected"),
    [
        (records(7, 3, 0), 99, False, 3),
        (records(7, 4, 0), 3, True, 4),
        (b"", 1, False, 0),  # one row, stored
        (b"", 2, False, 1),  # one row, for which another was deleted or changed
        (b"", 4, False, 3),  # REPLACE of three rows by one
        (b"", 0, False, 0),  # ON DUPLICATE KEY UPDATE that changed nothing
        (b"", 1, True, 0),
        (b"", 0, True, 1),
    ],
)
def test_duplicates_of_a_share(info: bytes, affected: int, ignored: bool, expected: int) -> None:
    assert duplicates(info, affected, ignored=ignored) == expected


@pytest.mark.parametrize(
    ("message", "rows", "expected"),
    [
        (b"Data too long for column 'a' at row 2", [3, 7, 9], b"Data too long for column 'a' at row 7"),
        (b"Data too long for column 'a' at row 2", None, b"Data too long for column 'a'"),
        (b"Data too long for column 'a' at row 4", [3, 7, 9], b"Data too long for column 'a'"),
        (b"Incorrect value: 'at row 5' for 'a' at row 1", [8], b"Incorrect value: 'at row 5' for 'a' at row 8"),
        (b"Duplicate entry ' at row 1' for key 'k'", [3], b"Duplicate entry ' at row 1' for key 'k'"),
    ],
)
def test_row_numbers_are_those_of_the_whole(message: bytes, rows: list[int] | None, expected: bytes) -> None:
    assert renumbered(message, rows) == expected


def test_messages_sort_by_their_rows() -> None:
    messages = [b"none", b"x at row 10", b"x at row 9"]
    assert sorted(messages, key=row_of) == [b"x at row 9", b"x at row 10", b"none"]


def test_rows_found_are_those_matched_or_deleted() -> None:
    assert found(b"Rows matched: 10  Changed: 2  Warnings: 1", 2) == 10
    assert found(b"", 3) == 3
