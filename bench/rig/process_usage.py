"""What /proc says about processes: CPU time and resident memory. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds; the unit of utime and stime


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. rss counts pages shared with other processes in full, pss by share: only pss may be added up fairly."""

    rss: int
    pss: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, all threads, those that ended included. Resolution: 10 ms.

    Raises FileNotFoundError when one of them is gone: its time would be missing.
    """
    return sum(parse_cpu_ticks(_stat(pid)) for pid in pids) * _TICK


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime out of the text of /proc/PID/stat."""
    fields = _after_name(stat)
    return int(fields[11]) + int(fields[12])


def tree(root: int) -> list[int]:
    """`root` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = _stat(int(entry.name))
            except OSError:  # ended meanwhile
                continue
            children.setdefault(int(_after_name(stat)[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while we walk it
        found.extend(children.get(pid, []))
    return found


def memory(pids: Iterable[int]) -> Memory:
    """Resident memory of the processes together. Raises FileNotFoundError when one of them is gone."""
    total = Memory(0, 0)
    for pid in pids:
        total += parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return total


def parse_smaps_rollup(text: str) -> Memory:
    """Rss and Pss out of the text of /proc/PID/smaps_rollup."""
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return Memory(kib["Rss"] * 1024, kib["Pss"] * 1024)


def rss(pids: Iterable[int]) -> int:
    """Resident bytes of the processes together: cheap enough to sample (`memory` walks all mappings)."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text()


def _after_name(stat: str) -> list[str]:
    # Field 2, the program's name, may hold blanks and parentheses; what follows the last one is field 3.
    return stat.rpartition(")")[2].split()
