"""The scanner of replies finds their ends, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.protocol.redis.replies import ArrayReader, ReplyScanner, values_of

_LINE = st.text(alphabet="abc 12", max_size=12).map(str.encode)
_SIMPLE = st.one_of(
    _LINE.map(lambda t: b"+%b\r\n" % t),
    _LINE.map(lambda t: b"-ERR %b\r\n" % t),
    st.integers().map(lambda n: b":%d\r\n" % n),
    st.binary(max_size=120).map(lambda b: b"$%d\r\n%b\r\n" % (len(b), b)),
    st.sampled_from(
        [b"$-1\r\n", b"*-1\r\n", b"*0\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n", b"(123456789012345678901\r\n"]
    ),
    st.binary(max_size=9).map(lambda b: b"=%d\r\ntxt:%b\r\n" % (len(b) + 4, b)),
    st.binary(max_size=9).map(lambda b: b"!%d\r\n%b\r\n" % (len(b), b)),
)
_ATTRIBUTE = st.tuples(_SIMPLE, _SIMPLE, _SIMPLE).map(lambda t: b"|1\r\n" + b"".join(t))
REPLIES = st.recursive(
    st.one_of(_SIMPLE, _ATTRIBUTE),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5).map(lambda parts: b"*%d\r\n%b" % (len(parts), b"".join(parts))),
        st.lists(inner, max_size=5).map(lambda parts: b"~%d\r\n%b" % (len(parts), b"".join(parts))),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda pairs: b"%%%d\r\n%b" % (len(pairs), b"".join(k + v for k, v in pairs))
        ),
    ),
    max_leaves=12,
)


def ends(pieces: list[bytes]) -> list[bytes]:
    """The replies found in these pieces, as the link finds them."""
    scanner = ReplyScanner()
    found: list[bytes] = []
    present, part = b"", b""
    for piece in pieces:
        data = part + piece
        part = b""
        pos = 0
        while pos < len(data):
            end = scanner.scan(data, pos)
            if end < 0:
                at = int(scanner.at)
                present += data[pos:at]
                part = data[at:]
                break
            found.append(present + data[pos:end])
            present = b""
            scanner.begin()
            pos = int(end)
    if present + part:
        found.append(present + part)
    return found


@given(st.lists(REPLIES, max_size=6), st.lists(st.integers(0, 2000), max_size=8))
def test_ends_however_they_are_cut(replies: list[bytes], places: list[int]) -> None:
    data = b"".join(replies)
    edges = [0, *sorted({p % (len(data) + 1) for p in places}), len(data)]
    assert ends([data[a:b] for a, b in pairwise(edges)]) == replies
    assert ends([data[i : i + 1] for i in range(len(data))]) == replies


@given(st.binary(max_size=60))
def test_garbage_raises_or_waits(data: bytes) -> None:
    try:
        ends([data])
    except RemoteProtocolError:
        return


def test_nesting_takes_no_stack() -> None:
    deep = b"*1\r\n" * 1_000_000 + b":1\r\n"
    assert ends([deep, b"+OK\r\n"]) == [deep, b"+OK\r\n"]


def test_a_header_without_its_body() -> None:
    scanner = ReplyScanner()
    assert scanner.scan(b"$536870912\r\nab", 0) == -1
    assert scanner.at == 14


@pytest.mark.parametrize("data", [b"x\r\n", b"$x\r\n", b"$-2\r\n", b"*1x\r\n", b"$1\rx", b"*" + b"9" * 30 + b"\r\n"])
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        ends([data])


@given(st.lists(REPLIES, max_size=5), st.integers(1, 1000))
def test_values_of_an_array(parts: list[bytes], cut: int) -> None:
    data = b"*%d\r\n%b" % (len(parts), b"".join(parts))
    assert values_of(data) == parts
    with pytest.raises(RemoteProtocolError):
        values_of(data[: cut % len(data)])
    with pytest.raises(RemoteProtocolError):
        values_of(data + b"x")


@given(st.lists(REPLIES, max_size=9), st.integers(1, 4))
def test_values_of_an_array_in_slices(parts: list[bytes], most: int) -> None:
    reader = ArrayReader(b"*%d\r\n%b" % (len(parts), b"".join(parts)))
    found: list[bytes] = []
    while reader.left:
        before = len(found)
        reader.take(found, most)
        assert 0 < len(found) - before <= most
    assert found == parts
    longer = ArrayReader(b"*1\r\n+a\r\n+b\r\n")
    with pytest.raises(RemoteProtocolError):
        longer.take(found, most)
