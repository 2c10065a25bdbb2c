"""How long a blocking command may wait."""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.redis.command import CommandSpec
from shardproxy.planner.redis.finders import stream_options

_FIRST = (b"BLMPOP", b"BZMPOP")  # their time is the first argument; of the others the last
_STREAMS = (b"XREAD", b"XREADGROUP")


def longest_wait(spec: CommandSpec, args: Sequence[bytes]) -> float | None:
    """Seconds until a node answers a command that blocks, at the latest, if it is well. 0 when the arguments are not
    well formed, which gets an error at once; None: for ever."""
    if spec.name in _STREAMS:
        at = stream_options(args)[1] + 1
        unit = 0.001
    else:
        at = 1 if spec.name in _FIRST else len(args) - 1
        unit = 1.0
    try:
        seconds = float(args[at]) * unit
    except (ValueError, IndexError):
        return 0.0
    return None if seconds == 0 else max(0.0, seconds)
