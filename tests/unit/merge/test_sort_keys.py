"""Sort keys: bytes that compare as the values do, whatever stands behind them."""

from __future__ import annotations

import datetime
import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import BackendError
from shardproxy.merge import keys
from shardproxy.merge.keys import KeyPart, padded, raw

TAILS = st.binary(max_size=3)  # the next value of the key
BIGINT = st.one_of(st.integers(-(2**63), 2**64 - 1), st.integers(-300, 300))


def _compare(left: bytes, right: bytes) -> int:
    return (left > right) - (left < right)


def _holds(order: int, left: bytes, right: bytes, tails: tuple[bytes, bytes]) -> None:
    """Unequal keys decide whatever follows; equal ones are the same bytes."""
    assert _compare(left, right) == order
    if order:
        assert _compare(left + tails[0], right + tails[1]) == order


def _both_ways(
    kind: int, binary: bool, a: bytes | None, b: bytes | None, order: int, tails: tuple[bytes, bytes]
) -> None:
    _holds(order, KeyPart(kind, False, binary).encode(a), KeyPart(kind, False, binary).encode(b), tails)
    _holds(-order, KeyPart(kind, True, binary).encode(a), KeyPart(kind, True, binary).encode(b), tails)


@given(BIGINT, BIGINT, st.tuples(TAILS, TAILS))
def test_integers_as_text(a: int, b: int, tails: tuple[bytes, bytes]) -> None:
    _both_ways(keys.INTEGER, False, b"%d" % a, b"%d" % b, (a > b) - (a < b), tails)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.tuples(TAILS, TAILS))
def test_integers_in_binary_rows(a: int, b: int, tails: tuple[bytes, bytes]) -> None:
    left, right = (struct.pack("<q", value) for value in (a, b))
    _both_ways(keys.INTEGER, True, left, right, (a > b) - (a < b), tails)


def test_unsigned_integers_in_binary_rows() -> None:
    part = KeyPart(keys.INTEGER, False, True, signed=False)
    found = [part.encode(value.to_bytes(8, "little")) for value in (0, 1, 255, 256, 2**63 - 1, 2**63, 2**64 - 1)]
    assert found == sorted(found)
    assert len(set(found)) == 7


@given(
    st.decimals(-(10**30), 10**30, allow_nan=False, places=6),
    st.decimals(-100, 100, allow_nan=False, places=2),
    st.tuples(TAILS, TAILS),
)
def test_decimals_of_any_number_of_digits(a: Decimal, b: Decimal, tails: tuple[bytes, bytes]) -> None:
    left, right = (f"{value:f}".encode() for value in (a, b))
    _both_ways(keys.DECIMAL, False, left, right, (a > b) - (a < b), tails)


def test_zeros_are_equal() -> None:
    part = KeyPart(keys.DECIMAL, False, False)
    assert len({part.encode(text) for text in (b"0", b"0.00", b"-0.00", b"00", b"-0")}) == 1
    double = KeyPart(keys.DOUBLE, False, False)
    assert double.encode(b"-0") == double.encode(b"0")


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_doubles(a: float, b: float) -> None:
    order = (a > b) - (a < b)
    _both_ways(keys.DOUBLE, False, repr(a).encode(), repr(b).encode(), order, (b"", b""))
    _both_ways(keys.DOUBLE, True, struct.pack("<d", a), struct.pack("<d", b), order, (b"", b""))


@given(st.binary(max_size=6), st.binary(max_size=6), st.tuples(TAILS, TAILS))
def test_bytes(a: bytes, b: bytes, tails: tuple[bytes, bytes]) -> None:
    _both_ways(keys.BYTES, False, a, b, (a > b) - (a < b), tails)


def _moment(at: datetime.datetime, size: int) -> bytes:
    fields = struct.pack("<HBBBBBI", at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond)
    return fields[:size]


@given(st.datetimes(), st.datetimes())
def test_moments(a: datetime.datetime, b: datetime.datetime) -> None:
    order = (a > b) - (a < b)
    left, right = (at.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0").encode() for at in (a, b))
    _both_ways(keys.MOMENT, False, left, right, order, (b"\xff", b"\x00"))
    _both_ways(keys.MOMENT, True, _moment(a, 11), _moment(b, 11), order, (b"\xff", b"\x00"))


def test_binary_moments_leave_zeros_out() -> None:
    part = KeyPart(keys.MOMENT, False, True)
    midnight = datetime.datetime(2024, 2, 29)
    assert part.encode(_moment(midnight, 4)) == part.encode(_moment(midnight, 11))
    assert part.encode(b"") < part.encode(_moment(datetime.datetime(1, 1, 1), 4))


TIMES = st.integers(-3020399 * 1000, 3020399 * 1000)  # milliseconds


def _time_text(value: int) -> bytes:
    seconds, milli = divmod(abs(value), 1000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milli:03}"
    return ("-" * (value < 0) + text).encode()


def _time_fields(value: int) -> bytes:
    if not value:
        return b""
    seconds, milli = divmod(abs(value), 1000)
    days, hour = divmod(seconds // 3600, 24)
    fields = struct.pack("<BIBBB", value < 0, days, hour, seconds // 60 % 60, seconds % 60)
    return fields + ((milli * 1000).to_bytes(4, "little") if milli else b"")


@given(TIMES, TIMES)
def test_times_of_day(a: int, b: int) -> None:
    order = (a > b) - (a < b)
    _both_ways(keys.DURATION, False, _time_text(a), _time_text(b), order, (b"\xff", b"\x00"))
    _both_ways(keys.DURATION, True, _time_fields(a), _time_fields(b), order, (b"\xff", b"\x00"))


@pytest.mark.parametrize(
    ("kind", "least"),
    [
        (keys.INTEGER, b"-9223372036854775808"),
        (keys.DECIMAL, b"-" + b"9" * 65),
        (keys.BYTES, b""),
        (keys.DOUBLE, b"-1e308"),
    ],
)
def test_null_comes_before_everything(kind: int, least: bytes) -> None:
    _both_ways(kind, False, None, least, -1, (b"\xff", b"\x00"))


# ── collations that pad ──

UNITS = st.lists(st.sampled_from([b"\x00\x01", b"\x00\x20", b"\x00\x21", b"\x20\x00", b"\xff\xff"]), max_size=40)


def _by_padding(a: bytes, b: bytes, blank: bytes) -> int:
    """As the servers compare: the shorter one goes on in blanks."""
    longest = max(len(a), len(b))
    left, right = (w + blank * ((longest - len(w)) // len(blank)) for w in (a, b))
    return (left > right) - (left < right)


@given(UNITS, UNITS, st.tuples(TAILS, TAILS))
def test_padded_weights(a: list[bytes], b: list[bytes], tails: tuple[bytes, bytes]) -> None:
    left, right = b"".join(a), b"".join(b)
    order = _by_padding(left, right, b"\x00\x20")
    _holds(order, padded(left, b"\x00\x20"), padded(right, b"\x00\x20"), tails)


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 30))
def test_padded_weights_of_one_byte(a: bytes, b: bytes, blanks: int) -> None:
    assert padded(a + b" " * blanks, b" ") == padded(a, b" ")
    assert _compare(padded(a, b" "), padded(b, b" ")) == _by_padding(a, b, b" ")


def test_weights_of_another_form_are_refused() -> None:
    with pytest.raises(BackendError, match="weights"):
        padded(b"abc", b"\x00\x20")
    with pytest.raises(BackendError, match="weights"):
        padded(b"abc", b"")


def test_only_what_servers_sort_by_is_looked_at() -> None:
    part = KeyPart(keys.BYTES, False, False)
    part.most = 4
    assert part.encode(b"abcdX") == part.encode(b"abcdY") == raw(b"abcd")
    part.whole = True
    assert part.encode(b"abcd") == raw(b"abcd")
    with pytest.raises(BackendError, match="more than 4 bytes"):
        part.encode(b"abcdX")


# ── where a value ends ──

VALUES: list[tuple[int, bool, st.SearchStrategy[bytes]]] = [
    (keys.INTEGER, False, BIGINT.map(lambda n: b"%d" % n)),
    (keys.INTEGER, True, st.integers(-(2**31), 2**31 - 1).map(lambda n: struct.pack("<i", n))),
    (keys.DECIMAL, False, st.decimals(-(10**9), 10**9, allow_nan=False, places=3).map(lambda n: f"{n:f}".encode())),
    (keys.DECIMAL, False, st.integers(-120, 120).map(lambda n: b"%d" % n)),
    (keys.DOUBLE, True, st.floats(allow_nan=False).map(lambda n: struct.pack("<d", n))),
    (keys.MOMENT, False, st.dates().map(lambda day: day.isoformat().encode())),
    (keys.MOMENT, True, st.sampled_from([b"", b"\xe4\x07\x01\x00", b"\xe4\x07\x01\x02\x03\x04\x05\x00\x00\x01\x00"])),
    (keys.DURATION, False, st.sampled_from([b"00:00:00.000", b"-838:59:59", b"-00:00:01", b"100:00:00"])),
    (keys.DURATION, True, st.sampled_from([b"", b"\x01\x00\x00\x00\x00\x01\x02\x03", bytes(8) + b"\x01\0\0\0"])),
    (keys.BYTES, False, st.binary(max_size=6) | st.sampled_from([b"\0", b"\0\0", b"\xff\0\xff", b"\0\xff"])),
    (keys.PADDED, False, st.binary(max_size=60)),
    (keys.CONSTANT, False, st.just(b"x")),
]


@given(st.data(), st.sampled_from(range(len(VALUES))), st.booleans(), st.binary(max_size=4), st.binary(max_size=4))
def test_where_a_value_ends(data: st.DataObject, which: int, descending: bool, before: bytes, after: bytes) -> None:
    kind, binary, values = VALUES[which]
    part = KeyPart(kind, descending, binary)
    part.blank = b" "
    key = part.encode(data.draw(st.none() | values))
    assert part.end(before + key + after, len(before)) == len(before) + len(key)
