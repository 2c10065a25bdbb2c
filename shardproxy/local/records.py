"""Records of running clusters, and the end of those whose owner is dead.

A record is `<cache>/run/<id>.json`, written before the first server starts:

    {"id": "3f…", "pid": 4711, "started": 123456, "boot": "…", "namespace": "pid:[…]", "folders": ["/…/run/3f…"]}

`started` is the owner's start time in clock ticks since boot (field 22 of /proc/PID/stat): a pid alone may have been
given to somebody else since.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shardproxy.local.folders import records_folder
from shardproxy.local.process import MARK

_ENDING = 10.0  # seconds to wait until a killed server is gone


@dataclass(frozen=True)
class Record:
    """One cluster and its owner. Attributes as in the module's docstring."""

    id: str
    pid: int
    started: int
    boot: str
    namespace: str
    folders: list[str]

    @property
    def path(self) -> Path:
        return records_folder() / f"{self.id}.json"

    def owner_alive(self) -> bool:
        """Whether the process that wrote the record still runs.

        An owner in another pid namespace (a container that shares our cache) is out of our sight and counts as alive.
        """
        if self.boot != _boot():
            return False
        if self.namespace != _namespace():
            return True
        return _start_ticks(self.pid) == self.started


def write_record(cluster_id: str, folders: Sequence[Path]) -> Record:
    """Note that this process owns the cluster `cluster_id`, whose files are in `folders` (each named by the id)."""
    pid = os.getpid()
    ticks = _start_ticks(pid)
    assert ticks is not None
    record = Record(cluster_id, pid, ticks, _boot(), _namespace(), [str(folder) for folder in folders])
    partial = record.path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(record)))
    partial.rename(record.path)
    return record


def remove(record: Record) -> None:
    """End whatever process of the cluster still runs, remove its folders, then its record (last: we may be killed)."""
    _end_processes(record.id)
    for folder in map(Path, record.folders):
        if record.id in folder.name:  # never trust a damaged record with anything else
            shutil.rmtree(folder, ignore_errors=True)
    record.path.unlink(missing_ok=True)


def clean_stale() -> list[str]:
    """Remove every cluster whose owner is dead: its processes, its folders, its record. Returns their ids."""
    removed = []
    for path in records_folder().glob("*.json"):
        try:
            record = Record(**json.loads(path.read_text()))
        except FileNotFoundError:
            continue  # another run was faster
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)  # not ours to understand, and nothing in it that we could end
            continue
        if not record.owner_alive():
            remove(record)
            removed.append(record.id)
    return removed


def processes_of(cluster_id: str) -> list[int]:
    """Pids of all processes that carry the mark of the cluster `cluster_id` in their environment."""
    mark = f"{MARK}={cluster_id}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _end_processes(cluster_id: str) -> None:
    """Kill them and wait until they are gone: what is about to end has no environment any more, but its ports still."""
    deadline = time.monotonic() + _ENDING
    ending: dict[int, int | None] = {}  # pid → when it started
    while time.monotonic() < deadline:
        for pid in processes_of(cluster_id):
            ending.setdefault(pid, _start_ticks(pid))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not any(ticks is not None and _start_ticks(pid) == ticks for pid, ticks in ending.items()):
            return
        time.sleep(0.01)


def _start_ticks(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since boot; None if there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    return None if fields[0] in "ZX" else int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")
