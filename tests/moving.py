"""Moves under way that a proxy of the tests is told of, in a file: nothing else in it differs from the real program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from shardproxy.topology.keys import KeyType
from shardproxy.topology.model import Snapshot
from shardproxy.topology.moves import Move, Phase, Stream
from shardproxy.topology.moving import MovingKeys

FILE = "SHARDPROXY_TEST_MOVES"  # environment variable with the file's name
PROGRAM = Path(__file__).with_name("moving_proxy.py")

Moves = Mapping[str, Move]  # by keyspace


def with_moves(snapshot: Snapshot, moves: Moves) -> Snapshot:
    """The snapshot with these moves. Its maps say who owns keys now."""
    keyspaces = {name: replace(one, move=moves.get(name)) for name, one in snapshot.keyspaces.items()}
    return replace(snapshot, keyspaces=keyspaces)


def write(moves: Moves, path: Path) -> None:
    form = {
        name: {"phase": move.phase.value, "streams": [_stream_form(stream) for stream in move.streams]}
        for name, move in moves.items()
    }
    path.write_text(json.dumps(form))


def read(path: Path) -> dict[str, Move]:
    return {
        name: Move(1, Phase(one["phase"]), 1, tuple(_stream(*stream) for stream in one["streams"]))
        for name, one in json.loads(path.read_text()).items()
    }


def _stream_form(stream: Stream) -> list[object]:
    keys = stream.keys
    buckets = None if keys.buckets is None else sorted(keys.buckets)
    return [stream.source, stream.target, keys.key_type.value, keys.intervals, buckets]


def _stream(source: int, target: int, key_type: str, intervals: list[list[int]] | None, buckets: list[int]) -> Stream:
    pairs = None if intervals is None else [(start, end) for start, end in intervals]
    return Stream(source, target, MovingKeys(KeyType(key_type), pairs, buckets))
