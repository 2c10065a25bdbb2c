"""Values of one group from several shards become one value, exactly as a server would have computed it."""

from __future__ import annotations

from shardproxy.errors import BackendError

_DIGITS = 9  # servers compute with decimals in words of so many digits
_MOST_DIGITS = 65


def parse_decimal(value: bytes) -> tuple[int, int]:
    """(number without its point, digits after the point) of a decimal as text."""
    whole, _, fraction = value.partition(b".")
    return int(whole + fraction), len(fraction)


def format_decimal(number: int, scale: int) -> bytes:
    """The decimal as servers print it. Raises BackendError when it has more digits than a DECIMAL may have."""
    digits = b"%d" % abs(number)
    if len(digits) > _MOST_DIGITS:
        raise BackendError("a sum over several shards has more digits than a DECIMAL")
    sign = b"-" if number < 0 else b""
    if not scale:
        return sign + digits
    digits = digits.rjust(scale + 1, b"0")
    return sign + digits[:-scale] + b"." + digits[-scale:]


def add_decimals(left: bytes, right: bytes) -> bytes:
    """The sum, with the digits after the point of the one that has more."""
    a, a_scale = parse_decimal(left)
    b, b_scale = parse_decimal(right)
    scale = max(a_scale, b_scale)
    return format_decimal(a * 10 ** (scale - a_scale) + b * 10 ** (scale - b_scale), scale)


def quotient(total: bytes, count: int, increment: int) -> tuple[int, int]:
    """(number without its point, digits after the point) of total / count as servers divide: cut off after whole words
    of nine digits. increment: div_precision_increment."""
    number, digits = parse_decimal(total)
    words = -(-digits // _DIGITS) * _DIGITS
    more = max(0, increment - (words - digits))
    kept = -(-(words + more) // _DIGITS) * _DIGITS
    result = abs(number) * 10 ** max(0, kept - digits) // count
    return (-result if number < 0 else result), kept


def average(total: bytes, count: int, scale: int, increment: int) -> bytes:
    """total / count with `scale` digits after the point: the quotient, rounded half away from zero."""
    number, kept = quotient(total, count, increment)
    result = abs(number)
    if kept > scale:
        unit = 10 ** (kept - scale)
        result = (result + unit // 2) // unit
    elif kept < scale:
        result *= 10 ** (scale - kept)
    return format_decimal(-result if number < 0 else result, scale)
