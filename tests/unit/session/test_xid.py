"""Names of transactions over shards: what is written can be read, and nothing else is taken for ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.session.xid import FORMAT, TransactionId, parse_branch, parse_transaction, shard_named, shard_word

NAMES = st.text(alphabet=st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=64)
THREADS = st.integers(0, 2**32 - 1)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1), THREADS, THREADS, NAMES)
def test_there_and_back(who: int, born: int, number: int, first: int, thread: int, name: str) -> None:
    ident = TransactionId(f"{who:012x}", born, number, first, shard_word(name))
    assert len(ident.text.encode()) <= 64 and "'" not in ident.text
    assert parse_transaction(ident.text) == ident
    found = parse_branch(FORMAT, len(ident.text), f"{ident.text}{thread:x}")
    assert found is not None and (found.transaction, found.thread) == (ident, thread)
    assert found.sql == f"'{ident.text}','{thread:x}',{FORMAT}"


@given(st.text(max_size=70), st.integers(0, 70))
def test_strangers_are_not_ours(data: str, length: int) -> None:
    assert parse_branch(1, length, data) is None
    found = parse_branch(FORMAT, length, data)
    assert found is None or found.transaction.text == data[:length]


def test_a_shard_is_found_by_its_word() -> None:
    names = ["a", "a.b", "shard-with-a-very-long-name-indeed", "b"]
    for name in names:
        assert shard_named(shard_word(name), names) == name
    assert shard_named("c", names) is None
    assert shard_named("a", ["a", "a"]) is None
