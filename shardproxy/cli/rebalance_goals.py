"""The words of `shardctl rebalance` for what a move shall reach, as goals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from shardproxy.config.units import parse_address
from shardproxy.errors import GoalError
from shardproxy.topology.goals import (
    AddShard,
    MergeRanges,
    MoveBuckets,
    MoveRange,
    SetWeights,
    ShiftBoundary,
    SplitRange,
    ToHash,
    ToRanges,
)
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.model import Role, Server, Shard
from shardproxy.topology.table_goals import ChangeKey, ShardTable

T = TypeVar("T")

_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_BUCKETS = re.compile(r"(\d+)(?:-(\d+))?")


def each(words: Sequence[str] | None, parse: Callable[[str], T]) -> list[T]:
    return [parse(word) for word in words or ()]


def add_shard(word: str, weight: int) -> AddShard:
    """ "d", or "d=10.0.0.9:3306,10.0.0.10:3306": the primary, then its replicas."""
    name, equals, addresses = word.partition("=")
    _shard_name("--add-shard", name)
    if not equals:
        return AddShard(name, weight=weight)
    servers = []
    for i, address in enumerate(addresses.split(",")):
        try:
            found = parse_address(address.strip())
        except ValueError as error:
            raise GoalError(f"--add-shard {word}: found {address!r}; expected {error}") from None
        role = Role.REPLICA if i else Role.PRIMARY
        servers.append(Server(f"{name}/{f'replica{i}' if i else 'primary'}", found.host, found.port, role, name))
    return AddShard(name, Shard(name, servers[0], tuple(servers[1:])), weight)


def weights(word: str) -> SetWeights:
    """ "a=2,b=1"."""
    found: dict[str, int] = {}
    for part in word.split(","):
        name, equals, number = part.strip().partition("=")
        if not equals or not number.isascii() or not number.isdigit() or name in found:
            raise GoalError(f"--weights {word}: found {part!r}; expected SHARD=WEIGHT,… such as a=2,b=1, each once")
        found[name] = int(number)
    return SetWeights(found)


def move_bucket(word: str) -> MoveBuckets:
    """ "17=b", "17-40=b"."""
    buckets, _, shard = word.partition("=")
    match = _BUCKETS.fullmatch(buckets)
    if match is None or not shard:
        raise GoalError(f"--move-bucket {word}: expected BUCKET=SHARD or FIRST-LAST=SHARD, such as 17-40=b")
    return MoveBuckets(int(match[1]), int(match[2] or match[1]), shard)


def move_range(word: str, option: str = "--move-range") -> MoveRange:
    """ "1000:2000=b", "min:0=b", "5000:max=b"."""
    keys, _, shard = word.partition("=")
    low, colon, high = keys.partition(":")
    if not colon or not shard:
        raise GoalError(f"{option} {word}: expected FROM:TO=SHARD, TO not included, such as 1000:2000=b or 5:max=b")
    start = INT_MIN if low == "min" else _key(option, word, low)
    end = INT_MAX + 1 if high == "max" else _key(option, word, high)
    return MoveRange(start, end, shard)


def split_range(word: str) -> SplitRange:
    """ "5000", "5000=b"."""
    at, equals, shard = word.partition("=")
    return SplitRange(_key("--split-range", word, at), shard if equals else None)


def merge_ranges(word: str) -> MergeRanges:
    """ "1000", "1000=b", "all"."""
    at, equals, shard = word.partition("=")
    if at == "all":
        if equals:
            raise GoalError(f"--merge-ranges {word}: expected `all` alone, which joins neighbours that share a shard")
        return MergeRanges()
    return MergeRanges(_key("--merge-ranges", word, at), shard if equals else None)


def shift(word: str) -> ShiftBoundary:
    """ "1000:1200"."""
    old, colon, new = word.partition(":")
    if not colon:
        raise GoalError(f"--shift {word}: expected OLD:NEW, the boundary's key now and then, such as 1000:1200")
    return ShiftBoundary(_key("--shift", word, old), _key("--shift", word, new))


def to_map(word: str) -> ToHash | ToRanges:
    """ "hash", "range:min:1000=a,1000:max=b"."""
    kind, colon, rest = word.partition(":")
    if kind == "hash" and not colon:
        return ToHash()
    if kind != "range" or not rest:
        raise GoalError(f"--map {word}: expected `hash`, or range: and every range, as range:min:1000=a,1000:max=b")
    return ToRanges(tuple(move_range(part.strip(), "--map range") for part in rest.split(",")))


def shard_table(word: str) -> ShardTable:
    """ "invoices=uid"."""
    return ShardTable(*_table_and_column("--shard-table", word))


def change_key(word: str) -> ChangeKey:
    """ "orders=tenant_id"."""
    return ChangeKey(*_table_and_column("--change-key", word))


def _table_and_column(option: str, word: str) -> tuple[str, str]:
    name, _, key = word.partition("=")
    if not name or not key:
        raise GoalError(f"{option} {word}: expected TABLE=COLUMN, the column that shall say where its rows are")
    return name, key


def rows_a_second(word: str) -> int:
    """ "20000", "20000/s", "20k/s": rows per second of each stream."""
    match = re.fullmatch(r"(\d+)(k?)(?:/s)?", word)
    rate = int(match[1]) * (1000 if match[2] else 1) if match else 0
    if not rate:
        raise GoalError(f"--throttle {word}: expected rows per second, such as 20000 or 20k/s")
    return rate


def _key(option: str, word: str, text: str) -> int:
    try:
        key = int(text)
    except ValueError:
        raise GoalError(f"{option} {word}: found {text!r}; expected an integer key") from None
    if not INT_MIN <= key <= INT_MAX:
        raise GoalError(f"{option} {word}: {key} is no key that BIGINT or BIGINT UNSIGNED can hold")
    return key


def _shard_name(option: str, name: str) -> None:
    if not _SHARD.fullmatch(name):
        raise GoalError(f"{option}: {name!r} is no name of a shard; expected letters, digits and _.-")
