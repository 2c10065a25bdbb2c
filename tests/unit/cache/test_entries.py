"""What entries say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.cache.entries import TOMBSTONE, Names, State, read, tag, two_values, value
from shardproxy.protocol.redis import encode

GENERATIONS = st.binary(min_size=8, max_size=8).map(lambda b: b.hex().encode())


@given(GENERATIONS, st.integers(0, 10**6), st.binary())
def test_a_value_is_believed_under_its_own_tag_alone(generation: bytes, epoch: int, payload: bytes) -> None:
    own = tag(generation, epoch)
    assert read(value(own, payload), own) == (State.VALUE, payload)
    assert read(value(own, None), own) == (State.ABSENT, b"")
    for other in (tag(generation, epoch * 10), tag(generation, epoch + 1), tag(generation[::-1] + b"0", epoch)):
        if other != own:
            assert read(value(own, payload), other)[0] is State.NOTHING
            assert read(value(own, None), other)[0] is State.NOTHING


def test_what_is_no_value() -> None:
    own = tag(b"aa", 1)
    assert read(None, own)[0] is State.NOTHING
    assert read(TOMBSTONE, own)[0] is State.TOMBSTONE
    assert read(b"Ltoken", own)[0] is State.LEASE


def test_names_of_two_processes_or_configurations_never_meet() -> None:
    def all_of(names: Names) -> list[bytes]:
        return [names.entry("users", (1, 2)), names.mark("a"), names.place("a")]

    one, two, three = Names("r1", "d"), Names("r2", "d"), Names("r1", "e")
    assert len({*all_of(one), *all_of(two), *all_of(three)}) == 9
    assert one.entry("users", (1, 2)) == b"_shardproxy:r1:d:row:users:1:2"


@given(st.none() | st.binary(), st.none() | st.binary())
def test_two_values_come_back(one: bytes | None, two: bytes | None) -> None:
    reply = encode.array([encode.bulk(one), encode.bulk(two)])
    assert two_values(reply) == (one, two)
    for broken in (reply[:-1], reply + b"x", reply[1:], b"-ERR no\r\n", b""):
        with pytest.raises(ValueError):
            two_values(broken)
