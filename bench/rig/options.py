"""What the benchmarks' command lines have in common, and what they say before they begin."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import NoReturn

from rich.console import Console

from bench.rig.peers import Peer
from shardproxy.errors import ShardproxyError
from shardproxy.local import LocalError

_BUSY = 0.5  # load average


def run_bench(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark and end the program: an error of ours is one line, and SIGTERM leaves no server and no folder
    behind, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _end)
    try:
        sys.exit(main())
    except ShardproxyError as error:
        sys.exit(str(error))


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def numbers(text: str) -> list[int]:
    """argparse type: comma-separated numbers."""
    return [int(word) for word in text.split(",")]


class WordsOf:
    """argparse type: a comma-separated list of known words."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        words = text.split(",")
        for word in words:
            if word not in self._known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(self._known)}")
        return words


def say_if_busy(console: Console) -> None:
    """Warn where something else runs on this machine."""
    load = os.getloadavg()[0]
    if load > _BUSY:
        console.print(f"[yellow]the machine is busy (load {load:.1f}): trust ratios, not absolute figures")


def started(
    names: Iterable[str], start: Callable[[str], Peer], console: Console
) -> tuple[list[Peer], dict[str, LocalError]]:
    """The peers that run, and why the others do not."""
    peers, missing = [], {}
    for name in names:
        try:
            peer = start(name)
        except LocalError as error:
            missing[name] = error
            console.print(f"[bold red]NOT MEASURED: {name}: {error}", highlight=False)
        else:
            console.print(f"{peer.name}: {peer.detail}", highlight=False)
            peers.append(peer)
    return peers, missing
