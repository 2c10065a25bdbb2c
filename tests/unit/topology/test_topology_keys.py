"""Buckets: the same as `CRC32(CRC32(key)) % 4096` on the servers, and even for every pattern of keys."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.keys import BUCKETS, bucket_of, canonical_text, key_bytes

# SELECT CRC32(CRC32(k)) % 4096, the same on MariaDB 10.11.19 and MySQL 9.7.4.
GOLDEN: list[tuple[int | bytes, int]] = [
    (0, 274),
    (1, 3214),
    (-1, 1465),
    (42, 909),
    (100, 73),
    (1_000_000, 2967),
    (2**31 - 1, 3117),
    (2**63 - 1, 307),
    (-(2**63), 2018),
    (2**64 - 1, 256),
    (b"", 3873),
    (b"a", 637),
    (b"zoe", 173),
    ("Zoë".encode(), 120),
    (b"AB", 2027),
    (bytes(range(256)), 1196),
]


@pytest.mark.parametrize(("key", "bucket"), GOLDEN)
def test_buckets_are_those_of_the_servers(key: int | bytes, bucket: int) -> None:
    assert bucket_of(key) == bucket


@given(st.integers(-(2**63), 2**64 - 1))
def test_an_integer_and_its_decimal_text_share_a_bucket(key: int) -> None:
    assert key_bytes(key) == str(key).encode()
    assert bucket_of(key) == bucket_of(key_bytes(key))


@given(st.binary())
def test_every_bucket_is_in_range(key: bytes) -> None:
    assert 0 <= bucket_of(key) < BUCKETS


@given(st.text(), st.integers(0, 3))
def test_trailing_spaces_do_not_change_a_text_key(text: str, spaces: int) -> None:
    raw = text.encode("utf-8", "replace")
    assert canonical_text(raw + b" " * spaces) == canonical_text(raw)
    assert not canonical_text(raw).endswith(b" ")


@pytest.mark.parametrize(
    "step", [1, 100, 1000, 4096], ids=["sequential", "hundreds", "thousands", "multiples of the bucket count"]
)
def test_buckets_are_even_for_round_keys(step: int) -> None:
    """χ² at 4095 degrees of freedom has mean 4095 and deviation 90; a single CRC gives 48,546 for hundreds."""
    keys = 200_000
    counts = Counter(bucket_of(i * step) for i in range(keys))
    mean = keys / BUCKETS
    chi2 = sum((counts[b] - mean) ** 2 / mean for b in range(BUCKETS))
    assert 4095 - 5 * 90 < chi2 < 4095 + 5 * 90
