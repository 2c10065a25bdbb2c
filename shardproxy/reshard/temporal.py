"""Dates, times and decimals of row events to the text that a SELECT gives, with the session in UTC. Pure."""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache

_DIGITS_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)  # bytes that hold 0 to 9 decimal digits
_EPOCH = date(1970, 1, 1)


def decimal_text(data: bytes, at: int, precision: int, scale: int) -> tuple[bytes, int]:
    """A DECIMAL(precision, scale) at `at`, and the place after it."""
    whole = precision - scale
    size = whole // 9 * 4 + _DIGITS_BYTES[whole % 9] + scale // 9 * 4 + _DIGITS_BYTES[scale % 9]
    end = at + size
    raw = bytearray(data[at:end])
    negative = not raw[0] & 0x80
    raw[0] ^= 0x80
    if negative:
        raw = bytearray(byte ^ 0xFF for byte in raw)
    place = 0
    digits: list[str] = []
    for width in (whole % 9, *([9] * (whole // 9))):
        place = _group(raw, place, width, digits)
    left = "".join(digits).lstrip("0") or "0"
    digits = []
    for width in (*([9] * (scale // 9)), scale % 9):
        place = _group(raw, place, width, digits)
    right = "".join(digits)
    text = f"{'-' if negative else ''}{left}{'.' if scale else ''}{right}"
    return text.encode(), end


def _group(raw: bytearray, place: int, width: int, digits: list[str]) -> int:
    if width:
        size = _DIGITS_BYTES[width]
        digits.append(f"{int.from_bytes(raw[place : place + size], 'big'):0{width}d}")
        place += size
    return place


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
