#!/usr/bin/env python3
"""Check the models here: the protocol must hold, every mutation must give a counterexample.

python3 run.py            all cases (needs spin >= 6.5 and gcc; about ten minutes, 8 GB)
python3 run.py copy       cases whose model or flags contain "copy"
python3 run.py -t copy -DMUT_POSFIRST   print the shortest counterexample of one case
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ALONE = "-DW0=1 -DW1=0 -DR0=0 -DR1=0"  # one writer
MIX = "-DW0=1 -DW1=0 -DR0=0 -DR1=1"  # a writer at one proxy, a scatter reader at the other
READER = "-DW0=0 -DW1=0 -DR0=0 -DR1=1"
BACK = "-DSTART_OPEN -DREVERSE"
ONCE = "-DNCR=0 -DNRE=0"  # no crash of the orchestrator, no time-out
MINUTES = 15  # for a case

HOLDS = [
    ("commit", "-DMARIADB -DNCRASH=1"),
    ("commit", "-DMARIADB -DONE_RECOVERER"),
    ("copy", "-DNW=3 -DNX=1 -DNC=2"),
    ("copy", "-DNW=1 -DNX=2 -DNC=1"),
    ("copy", "-DMARIADB -DNW=2 -DNX=1 -DNC=1"),
    ("copy", "-DMARIADB -DNW=1 -DNX=2 -DNC=1"),
    ("cutover", f"{ALONE} -DNCR=0 -DNRE=1"),
    ("cutover", f"{ALONE} -DNCR=0 -DNRE=2 -DKEEP_REV"),
    ("cutover", f"{ALONE} {ONCE} -DREVERSE"),
    ("cutover", f"{ALONE} -DNCR=1 -DNRE=0 -DLAY_NOTOKEN"),
    ("cutover", f"{MIX} {ONCE}"),
    ("cutover", f"{ALONE} {ONCE} -DSTAY"),
    ("cutover", f"{MIX} {ONCE} -DREPLICA"),
    ("cutover", f"{ALONE} {ONCE} -DNPW=1"),
    ("cutover", f"{ALONE} {ONCE} -DNPW=1 -DSURVIVE"),
    ("cutover", f"{READER} {ONCE} -DNPW=1"),
    ("cutover", f"{BACK} {ALONE} {ONCE} -DNPW=1"),
    ("cutover", f"{BACK} {ALONE} -DNCR=0 -DNRE=1"),
    ("cutover", f"{BACK} {ALONE} -DNCR=0 -DNRE=2"),
    ("cutover", f"{BACK} {ALONE} -DNCR=0 -DNRE=2 -DKEEP_FWD"),
    ("cutover", f"{BACK} {MIX} -DNCR=0 -DNRE=1"),
    ("cache", "-DNR=1 -DNC=1 -DNF=0"),
    ("cache", "-DNR=1 -DNC=0 -DNF=1"),
    ("cache", "-DTABLE -DNR=4 -DNC=1 -DNF=0 -DSMALL"),
    ("cache", "-DTABLE -DNR=4 -DNC=0 -DNF=1 -DSMALL"),
    ("cache", "-DREFRESH -DONE_WRITER -DNR=2 -DNC=0 -DNF=0"),
    ("cache", "-DREFRESH -DONE_WRITER -DNR=2 -DNC=1 -DNF=0"),
    ("cache", "-DREFRESH -DTABLE -DNR=4 -DNC=0 -DNF=0 -DSMALL"),
    ("query", "-DNR=2 -DNC=0 -DNF=0"),
    *[("straddle", f"-DWAIT_SLOT -DONE_TX{server}") for server in ("", " -DKEEP_S")],
    ("home", "-DNM=2 -DNCR=1 -DNT=3"),
    ("kinds", "-DNU=2"),
    ("watch", "-DND=2"),
    ("watch", "-DND=3 -DNCR=0"),
    ("rediskeys", "-DOPS=2"),
    ("rediskeys", "-DOPS=1 -DNP=1 -DTWO_MOVERS"),
    ("rediskeys", "-DOPS=2 -DNP=1 -DFAILOVERS=1"),
    ("rediskeys", "-DOPS=1 -DLAST=1 -DFAILOVERS=1"),
    ("rediskeys", "-DOPS=1 -DNP=1 -DFAILOVERS=2"),
]
FAILS = [
    ("commit", "-DMARIADB -DNCRASH=0 -DMUT_NOWAIT_ENGINE"),
    ("commit", "-DMARIADB -DNCRASH=0 -DMUT_NOKILL_R"),
    *[
        ("copy", f"-DMUT_{rule}")
        for rule in (
            "POSFIRST", "NOPOSCHECK", "NOWM", "POS_SEPARATE", "XA_AT_PREPARE", "XA_RESTART", "XA_SNAP", "XA_FILTER",
        )
    ],
    *[("copy", f"-DMARIADB -DMUT_{rule}") for rule in ("NO_DOUBT", "NO_RUNNING", "LIST_AT_ONCE")],
    *[
        ("cache", f"-DNF=0 -DMUT_{rule}")
        for rule in ("NO_LEASE", "NO_HOLDOFF", "NO_SECOND", "SHORTEN", "POS_AHEAD", "MARK_EARLY", "GEN_AT_ONCE")
    ],
    ("cache", "-DNR=2 -DNC=0 -DSMALL -DMUT_NO_RUN"),
    ("cache", "-DTABLE -DNR=3 -DNC=0 -DNF=0 -DSMALL -DMUT_SAME_TOKEN"),
    ("cache", "-DTABLE -DNR=3 -DNC=0 -DNF=0 -DSMALL -DMUT_NO_SECOND"),
    *[("cache", f"-DREFRESH -DONE_WRITER -DNR=2 -DNC=0 -DNF=0 -DMUT_REFRESH_{rule}") for rule in ("BLIND", "APART")],
    *[
        ("query", f"-DNR=3 -DNC=0 -DNF=0 -DMUT_{rule}")
        for rule in ("ONE_TOKEN", "ONE_MARK", "NO_HOLDOFF", "SAME_TOKEN", "NO_FIRST")
    ],
    ("cutover", f"{ALONE} {ONCE} -DNOFILTER"),
    ("cutover", f"{BACK} {ALONE} {ONCE} -DNOFILTER"),
    ("cutover", f"{ALONE} {ONCE} -DREVERSE -DMUT_FWD_FROM_START"),
    *[
        ("cutover", f"{ALONE} {ONCE} -DMUT_{rule}")
        for rule in (
            "NOFENCE", "POSFIRST", "NOACK_ARMED", "LEASE", "KILL_NOWAIT", "NOLATE", "BLIND", "ACK_EARLY", "NODRAIN",
            "REV_LATE -DREVERSE",
        )
    ],
    *[
        ("cutover", f"{READER} {ONCE} -DMUT_{rule}")
        for rule in ("NOACK_PREP", "OPEN_EARLY", "TWO_MAPS", "CANCEL_NODEL")
    ],
    ("cutover", f"{ALONE} -DNCR=1 -DNRE=0 -DMUT_NOTOKEN"),
    ("cutover", f"{ALONE} -DNCR=1 -DNRE=0 -DLAY_NOTOKEN -DMUT_LAY_EPOCH"),
    ("cutover", f"{ALONE} {ONCE} -DSTAY -DMUT_STAYS"),
    ("cutover", f"{MIX} {ONCE} -DREPLICA -DNOEVICT -DMUT_POS_EARLY"),
    ("cutover", f"{ALONE} {ONCE} -DNPW=1 -DMUT_LOOSE_SWITCHED"),
    ("straddle", "-DWAIT_SLOT -DONE_TX -DMUT_NO_SLOTS"),
    ("straddle", "-DWAIT_SLOT -DONE_TX -DKEEP_S -DMUT_NO_SLOTS"),
    ("straddle", "-DWAIT_SLOT -DONE_TX -DMUT_OLD_BRANCHES"),
    ("straddle", "-DWAIT_SLOT -DDRAIN_AT_FENCE"),
    ("straddle", "-DONE_TX"),
    *[
        ("home", f"-DMUT_{rule}")
        for rule in ("NOPARK", "HERE_STAYS", "START_APART", "NOEXPECT", "PUT_FIRST", "PUT_AS_IS", "NOTOKEN")
    ],
    *[("kinds", f"-DNU=2 -D{rule}") for rule in ("MUT_REPLACE", "MUT_IGNORE", "ANY_ORDER")],
    *[("watch", f"-DMUT_{rule}") for rule in ("FROM_NOW", "BEYOND", "NO_SURE", "SURE_AT_ONCE")],
    *[
        ("rediskeys", f"-DOPS=2 -DMUT_{rule}")
        for rule in (
            "DROP_FIRST", "PUT_UNFENCED", "NO_MARK", "ACK_EARLY", "NO_HOLD", "NO_BARRIER",
            "NOT_EMPTIED", "NOT_SCANNED",
        )
    ],
    ("rediskeys", "-DOPS=2 -DNP=1 -DTWO_MOVERS -DMUT_EMPTY_UNFENCED"),
    ("rediskeys", "-DOPS=2 -DNP=1 -DTWO_MOVERS -DMUT_DROP_UNFENCED"),
    *[
        ("rediskeys", f"-DOPS=2 -DNP=1 -DFAILOVERS=1 -DMUT_{rule}")
        for rule in ("DROP_LAGS", "EMPTY_LAGS", "CLOSING_LAGS", "KEEP_HERE")
    ],
]  # fmt: skip


def tool(*words: str, cwd: Path, check: bool = True) -> str:
    """What a program prints."""
    return subprocess.run(words, cwd=cwd, check=check, capture_output=True, text=True).stdout  # noqa: S603 — our words


def check(model: str, flags: str, holds: bool, trace: bool = False) -> bool:
    """Check one case and print a line; whether it is as it must be."""
    work = Path(tempfile.mkdtemp(prefix="model-"))
    try:
        for file in HERE.glob("*.pml"):
            shutil.copy(file, work)
        tool("spin", *flags.split(), "-a", f"{model}.pml", cwd=work)
        # The whole space by 8-byte hashes, or the shortest counterexample.
        how = ["-DHC4"] if holds else ["-DBFS", "-DCOLLAPSE"]
        how += ["-DNOREDUCE"] if model == "copy" else []
        tool("gcc", "-O2", "-w", "-DSAFETY", "-DVECTORSZ=4096", "-DMEMLIM=8000", *how, "-o", "pan", "pan.c", cwd=work)
        began = time.monotonic()
        said = tool("./pan", "-m1000000", "-w26", f"-Q{MINUTES}", cwd=work, check=False)
        took = time.monotonic() - began
        if trace:
            print(tool("spin", *flags.split(), "-t", "-p", "-g", f"{model}.pml", cwd=work, check=False))
        return _report(model, flags, holds, said, took)
    finally:
        shutil.rmtree(work)


def _report(model: str, flags: str, holds: bool, said: str, took: float) -> bool:
    wanted = (r"errors: (\d+)", r"([\d.e+]+) states, stored", r"depth reached (\d+)")
    numbers = [re.search(what, said) for what in wanted]
    errors, states, depth = (int(float(found[1])) if found else 0 for found in numbers)
    complete = bool(errors) or "Search not completed" not in said
    good = all(numbers) and complete and (errors == 0) == holds
    why = re.search(r"pan:1: (.*) \(at depth \d+\)", said)
    print(
        f"{'ok ' if good else 'BAD'} {model:9} {flags:66} {'holds' if errors == 0 else 'counterexample':14} "
        f"{states:>11,} states depth {depth:<4} {took:6.1f} s {'' if complete else 'NOT COMPLETE '}"
        f"{why[1][:60] if why else ''}",
        flush=True,
    )
    return good


def main(argv: list[str]) -> int:
    """The exit status: 0 when every case is as it must be."""
    if argv[:1] == ["-t"]:
        return int(not check(argv[1], " ".join(argv[2:]), holds=False, trace=True))
    cases = [(*case, True) for case in HOLDS] + [(*case, False) for case in FAILS]
    picked = [case for case in cases if not argv or argv[0] in f"{case[0]} {case[1]}"]
    return int(not all([check(*case) for case in picked]))  # noqa: C419 — all of them, whatever the first says


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
