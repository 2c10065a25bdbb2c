"""Sizes and addresses as people write them, and the pydantic types that parse these and durations.

Each `parse_*` function raises ValueError with a message that says what was expected; the found value is added by the
caller, who knows whether it may be shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from shardproxy.durations import format_duration, parse_duration

_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB|GiB)")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address. `str(address)` is the form that the file uses."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_size(value: object) -> int:
    """Bytes from "64MiB", "512KiB", "1GiB" or "4096B"."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('a size with its unit, such as "512KiB", "64MiB" or "1GiB"')
    return int(match[1]) * _BYTES[match[2]]


def parse_address(value: object) -> Address:
    """Host and port from "db1.example.org:3306" or "[::1]:3306"."""
    expected = '"host:port", such as "10.0.0.5:3306" or "[::1]:3306"'
    if not isinstance(value, str):
        raise ValueError(expected)
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(expected + " (an IPv6 address stands in brackets)")
    if not colon or not host or re.search(r"\s", host) or not port.isascii() or not port.isdigit():
        raise ValueError(expected)
    if not 1 <= int(port) <= 65535:
        raise ValueError(expected + " with a port from 1 to 65535")
    return Address(host, int(port))


def format_size(size: int) -> str:
    """The shortest exact way to write a size; the inverse of parse_size."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def parse_range_edge(value: object) -> int | None:
    """A key, or None for the open end ("min" of `from`, "max" of `to`; the rules check which one is allowed)."""
    if value in ("min", "max"):
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError('an integer key, or "min" (for from) or "max" (for to)')
    if not -(2**63) <= value <= 2**64:
        raise ValueError("an integer key that BIGINT or BIGINT UNSIGNED can hold")
    return value


Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size)]
RangeEdge = Annotated[int | None, BeforeValidator(parse_range_edge)]
AddressText = Annotated[Address, BeforeValidator(parse_address), PlainSerializer(str)]
