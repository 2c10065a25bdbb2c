"""bench.rig.process_usage: texts of /proc, and this very process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.rig.process_usage import Memory, cpu_seconds, memory, parse_cpu_ticks, parse_smaps_rollup, rss, tree

STAT = "4711 (a (strange) name) S 1 4711 4711 0 -1 4194560 500 0 0 0 123 45 6 7 20 0 9 0 331 1000 200 1844"


def test_ticks_whatever_the_name() -> None:
    assert parse_cpu_ticks(STAT) == 168


def test_smaps_rollup() -> None:
    text = (
        "55d0-7ffe ---p 00000000 00:00 0                          [rollup]\n"
        "Rss:               10240 kB\nPss:                5000 kB\nPss_Dirty:           100 kB\n"
    )
    assert parse_smaps_rollup(text) == Memory(10240 * 1024, 5000 * 1024)


def test_our_own_cpu_time_grows_with_work() -> None:
    before, spent = cpu_seconds([os.getpid()]), time.process_time()
    while time.process_time() - spent < 0.05:
        sum(range(1000))
    assert 0.02 <= cpu_seconds([os.getpid()]) - before <= time.process_time() - spent + 0.05


def test_memory_of_this_process() -> None:
    ours = memory([os.getpid()])
    assert 0 < ours.pss <= ours.rss
    assert rss([os.getpid()]) == pytest.approx(ours.rss, rel=0.2)


def test_tree_holds_grandchildren() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as child:
        try:
            deadline = time.monotonic() + 20
            while len(tree(child.pid)) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert len(tree(child.pid)) == 2
            assert child.pid in tree(os.getpid())
        finally:
            assert child.stdin is not None
            child.stdin.close()


def test_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(FileNotFoundError):
        cpu_seconds([os.getpid(), child.pid])
