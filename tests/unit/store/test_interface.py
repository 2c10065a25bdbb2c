"""Keys, prefixes and documents as every store takes them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import DocumentError
from shardproxy.store.interface import (
    Condition,
    Delete,
    Put,
    Write,
    checked,
    conflict_text,
    decode,
    encode,
    key_bytes,
    prefix_end,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary(min_size=0, max_size=4), st.binary(max_size=6))
def test_the_range_of_a_prefix_holds_exactly_what_begins_with_it(prefix: bytes, data: bytes) -> None:
    end = prefix_end(prefix)
    assert data.startswith(prefix) == (prefix <= data and (end is None or data < end))


@given(st.dictionaries(st.text(alphabet=st.characters(codec="utf-8")), JSON))
def test_documents_survive_and_equal_ones_are_stored_alike(value: dict[str, object]) -> None:
    text = encode(value)
    assert decode("k", text) == json.loads(json.dumps(value))
    assert encode(dict(reversed(value.items()))) == text


@pytest.mark.parametrize("text", ["", "{", "[1]", "1", "null", b"\xff{}"])
def test_what_is_no_document_is_told_with_its_key(text: str | bytes) -> None:
    with pytest.raises(DocumentError, match="map store: some/key: found"):
        decode("some/key", text)


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 513, "ü" * 257])
def test_keys_have_limits(key: str) -> None:
    with pytest.raises(ValueError):
        key_bytes(key)


def test_a_commit_is_checked_and_encoded() -> None:
    writes: list[Write] = [Put("a", {"n": 1}), Delete("b")]
    assert checked([Condition("a", 0), Condition("c", 3)], writes) == {"a": '{"n":1}', "b": None}


def test_a_conflict_says_what_was_found_and_expected() -> None:
    text = conflict_text([Condition("a", 3), Condition("b", 0)], {"a": 0, "b": 7})
    assert (
        text == "map store: a is absent, expected version 3; b is version 7, expected absent: somebody else changed it"
    )
