"""How a value is shown in a message, as the servers do it."""

from __future__ import annotations

import pytest

from shardproxy.executor.lookup_entries import Entry, duplicate, shown_entry
from shardproxy.planner.lookup_plan import Index, Part, PartKind
from shardproxy.topology.keys import KeyType

INDEX = Index("users(email)", "main", "users", "uq", (Part("email", PartKind.BINARY),), "uid", KeyType.INT)


@pytest.mark.parametrize(("value", "mariadb", "mysql"), [
    ("a@x", "a@x", "a@x"),
    ("x" * 64, "x" * 64, "x" * 64),
    ("x" * 65, "x" * 61 + "...", "x" * 64),
    ("é" * 33, "é" * 30 + "...", "é" * 32),
    ("日" * 62, "日" * 20 + "...", "日" * 21 + "æ"),
    ("a\0b", "a\\0000b", "a"),
])  # fmt: skip
def test_values_in_messages(value: str, mariadb: str, mysql: str) -> None:
    """Measured on MariaDB 10.11 and MySQL 9.7."""
    assert shown_entry(value.encode(), True) == mariadb
    assert shown_entry(value.encode(), False) == mysql


def test_the_error_names_the_tables_own_key() -> None:
    entry = Entry(INDEX, b"A@X", b"1", b"a@x", (b"a@x",))
    assert str(duplicate(entry, True)) == "Duplicate entry 'a@x' for key 'uq'"
    error = duplicate(entry, False)
    assert (str(error), error.code, error.sqlstate) == ("Duplicate entry 'a@x' for key 'users.uq'", 1062, "23000")
