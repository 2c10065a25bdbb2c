"""What a worker asks of the kernel for its own process."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1  # of prctl(2)
MADV_DONTNEED = 4  # of madvise(2)


def die_with_supervisor() -> None:
    """Have the kernel kill this process, even a stopped one, when its supervisor ends: whoever finds that gone may take
    it that nothing new comes from its workers (R4)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def unmap_code_of_the_start() -> None:
    """Give back the pages of machine code that were needed so far; those that are needed again come back one by one.

    Compiled modules run most of their code once, when they are imported: 10 MiB of a worker. Only mappings that cannot
    be written are given back, so every page is as it is in its file.
    """
    madvise = ctypes.CDLL(None).madvise
    with open("/proc/self/maps") as file:
        lines = file.readlines()
    for line in lines:
        fields = line.split(maxsplit=5)  # addresses, access, offset, device, inode, path if it is of a file
        if fields[1] == "r-xp" and fields[-1].startswith("/"):
            begin, end = (int(number, 16) for number in fields[0].split("-"))
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)
