"""Where local servers keep their files, and the lock that lets several runs share the cache."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """The cache: `$SHARDPROXY_CACHE`, else `$XDG_CACHE_HOME/shardproxy`, else `~/.cache/shardproxy`.

    Created on demand.
    """
    own = os.environ.get("SHARDPROXY_CACHE")
    if own:
        folder = Path(own)
    else:
        base = os.environ.get("XDG_CACHE_HOME")
        folder = (Path(base) if base else Path.home() / ".cache") / "shardproxy"
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def records_folder() -> Path:
    """Where running clusters leave their records (`<id>.json`) and, by default, their files (`<id>/`)."""
    folder = cache_folder() / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock `name` (across processes; released by the kernel when its holder dies)."""
    with (cache_folder() / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
