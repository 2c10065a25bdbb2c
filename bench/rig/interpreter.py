"""How quick the interpreter is that shardproxy runs on, compared with the system's own.

One built without profile-guided optimisation takes about a third longer for the same Python code, which
says something about the build and nothing about shardproxy; build flags do not tell reliably, so we look.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
SLOWER = 1.15
# The kind of work that a proxy's hot path does: small functions, a regular expression, slices, dicts.
_WORK = r"""
import re, time
number = re.compile(rb"'(?:[^'\\]|\\.|'')*'|\b\d+(?:\.\d+)?\b")
packet = b"\x26\0\0\0\x03SELECT c FROM sbtest1 WHERE id=50123"
plans = {}
def plan(sql):
    literals = []
    def out(match):
        literals.append(match.group())
        return b"?"
    digest = number.sub(out, sql)
    if digest not in plans:
        plans[digest] = len(literals) - 1
    return int(literals[plans[digest]])
best = 1e9
for _ in range(7):
    start = time.thread_time()
    for _ in range(5000):
        length = packet[0] | packet[1] << 8 | packet[2] << 16
        plan(packet[5 : 4 + length])
    best = min(best, time.thread_time() - start)
print(best / 5000 * 1e6)
"""


def work_us(python: str) -> float:
    """CPU µs that the interpreter takes for one piece of the work; the best of several."""
    done = subprocess.run([python, "-c", _WORK], capture_output=True, text=True, check=True)
    return float(done.stdout)


def described(python: str) -> str:
    """Implementation and version of an interpreter."""
    if python == sys.executable:
        return f"{platform.python_implementation()} {platform.python_version()}"
    code = "import platform; print(platform.python_implementation(), platform.python_version())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def warning(python: str) -> str | None:
    """What to say when the system has a quicker interpreter than `python`; None when it has not."""
    if not Path(SYSTEM_PYTHON).exists():
        return None
    ours, system = work_us(python), work_us(SYSTEM_PYTHON)
    if ours < system * SLOWER:
        return None
    return (
        f"{python} takes {ours / system:.2f} times as long for plain Python work as {SYSTEM_PYTHON} "
        f"({described(SYSTEM_PYTHON)}): it was probably built without optimisation, and the figures will show that. "
        f"Make the virtual environment with {SYSTEM_PYTHON}, or name an interpreter with --python"
    )
