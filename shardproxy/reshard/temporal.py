"""Dates, times and decimals of row events to the text that a SELECT gives, with the session in UTC. Pure."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

_DIGITS_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)  # bytes that hold 0 to 9 decimal digits
_EPOCH = date(1970, 1, 1)


@lru_cache(256)
def _groups(precision: int, scale: int) -> tuple[int, list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Bytes of a DECIMAL, and its groups of digits before and behind the point: (shift, mask, power of ten)."""
    whole = precision - scale
    left = [whole % 9, *([9] * (whole // 9))]
    right = [*([9] * (scale // 9)), scale % 9]
    size = sum(_DIGITS_BYTES[width] for width in (*left, *right))
    place = 8 * size
    found: list[list[tuple[int, int, int]]] = []
    for widths in (left, right):
        groups = []
        for width in filter(None, widths):
            bits = 8 * _DIGITS_BYTES[width]
            place -= bits
            groups.append((place, (1 << bits) - 1, 10**width))
        found.append(groups)
    return size, found[0], found[1]


def decimal_size(precision: int, scale: int) -> int:
    """How many bytes a DECIMAL(precision, scale) takes."""
    return _groups(precision, scale)[0]


def decimal_text(data: bytes, at: int, precision: int, scale: int) -> tuple[bytes, int]:
    """A DECIMAL(precision, scale) at `at`, and the place after it."""
    size, left, right = _groups(precision, scale)
    end = at + size
    top = 1 << (8 * size - 1)
    raw = int.from_bytes(data[at:end], "big") ^ top
    sign = b""
    if raw & top:
        sign = b"-"
        raw ^= 2 * top - 1
    whole = 0
    for shift, mask, power in left:
        whole = whole * power + (raw >> shift & mask)
    if not scale:
        return b"%s%d" % (sign, whole), end
    part = 0
    for shift, mask, power in right:
        part = part * power + (raw >> shift & mask)
    return b"%s%d.%0*d" % (sign, whole, scale, part), end


@lru_cache(4096)
def _day(days: int) -> bytes:
    return (_EPOCH + timedelta(days)).isoformat().encode()


def _fraction(value: int, size: int, decimals: int) -> bytes:
    """ ".123" of a fraction stored in `size` bytes; b"" for none."""
    if not decimals:
        return b""
    return b".%s" % (b"%0*d" % (size * 2, value))[:decimals]


def timestamp_text(data: bytes, at: int, decimals: int) -> tuple[bytes, int]:
    size = (decimals + 1) // 2
    end = at + 4 + size
    seconds = int.from_bytes(data[at : at + 4], "big")
    value = int.from_bytes(data[at + 4 : end], "big")
    if not seconds and not value:
        return b"0000-00-00 00:00:00" + _fraction(0, size, decimals), end
    days, rest = divmod(seconds, 86400)
    clock = b" %02d:%02d:%02d" % (rest // 3600, rest // 60 % 60, rest % 60)
    return _day(days) + clock + _fraction(value, size, decimals), end


def date_text(year_month: int, day: int) -> bytes:
    """year_month: year * 13 + month."""
    return b"%04d-%02d-%02d" % (year_month // 13, year_month % 13, day)


def _datetime(packed: int) -> bytes:
    ymd, hms = packed >> 17, packed & 0x1FFFF
    return date_text(ymd >> 5, ymd & 31) + b" %02d:%02d:%02d" % (hms >> 12, hms >> 6 & 63, hms & 63)


def datetime_text(data: bytes, at: int, decimals: int) -> tuple[bytes, int]:
    size = (decimals + 1) // 2
    end = at + 5 + size
    packed = int.from_bytes(data[at : at + 5], "big") - 0x8000000000
    return _datetime(packed) + _fraction(int.from_bytes(data[at + 5 : end], "big"), size, decimals), end


def packed_datetime_text(packed: int) -> bytes:
    """As in JSON documents: microseconds in the low 24 bits."""
    return _datetime(packed >> 24) + b".%06d" % (packed & 0xFFFFFF)


def _clock(whole: int) -> bytes:
    return b"%02d:%02d:%02d" % (whole >> 12 & 0x3FF, whole >> 6 & 63, whole & 63)


def time_text(data: bytes, at: int, decimals: int) -> tuple[bytes, int]:
    """A TIME: an offset binary number with the fraction in its low bytes, so that -00:00:00.5 is less than zero."""
    size = (decimals + 1) // 2
    end = at + 3 + size
    packed = int.from_bytes(data[at:end], "big") - (0x800000 << 8 * size)
    sign = b"-" if packed < 0 else b""
    packed = abs(packed)
    fraction = _fraction(packed & ((1 << 8 * size) - 1), size, decimals)
    return sign + _clock(packed >> 8 * size) + fraction, end


def packed_time_text(packed: int) -> bytes:
    """As in JSON documents."""
    sign = b"-" if packed < 0 else b""
    packed = abs(packed)
    return sign + _clock(packed >> 24) + b".%06d" % (packed & 0xFFFFFF)


def old_date_text(data: bytes, at: int) -> tuple[bytes, int]:
    """A DATE of three bytes."""
    packed = data[at] | data[at + 1] << 8 | data[at + 2] << 16
    return b"%04d-%02d-%02d" % (packed >> 9, packed >> 5 & 15, packed & 31), at + 3
