"""Durations, sizes and addresses: what is written is what is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.config.units import (
    Address,
    format_size,
    parse_address,
    parse_size,
)
from shardproxy.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("5s", 5.0), ("10m", 600.0), ("8h", 28800.0), ("1d", 86400.0), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["5", 5, "", "s", "-1s", "1 s", "1s ", "1S", "5sec", "1m30s", None, True, "1e3s", "٣s"]
)
def test_other_durations_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a duration with its unit"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("0B", 0), ("17B", 17), ("4KiB", 4096), ("64MiB", 2**26), ("1GiB", 2**30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["64", 64, "64MB", "64mib", "1.5MiB", "-1B", None])
def test_other_sizes_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="a size with its unit"):
        parse_size(text)


@given(st.integers(0, 2**40))
def test_a_size_survives_writing_and_reading(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**9))
def test_a_duration_in_milliseconds_survives_writing_and_reading(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("db1:3306", Address("db1", 3306)),
        ("10.0.0.5:1", Address("10.0.0.5", 1)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text", ["db1", ":3306", "db1:", "db1:x", "::1:3306", "db1:65536", "a b:1", 3306, None, "h:-1", "h:²"]
)
def test_other_addresses_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match='"host:port"'):
        parse_address(text)
