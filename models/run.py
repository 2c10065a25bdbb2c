#!/usr/bin/env python3
"""Check every model: the corrected protocol must hold, every mutation must give a counterexample.

    python3 run.py            all cases (needs spin >= 6.5 and gcc; about 15 minutes, 8 GB)
    python3 run.py copy       cases whose model or flags contain "copy"
    python3 run.py -t copy -DMUT_POSFIRST   print the shortest counterexample of one case
"""
import pathlib, re, shutil, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).parent
ALONE = "-DW0=1 -DW1=0 -DR0=0 -DR1=0"  # one writer
MIX = "-DW0=1 -DW1=0 -DR0=0 -DR1=1"  # writer at one proxy, scatter reader at the other
OK, BAD = True, False

CASES = [
    ("copy", "-DNW=3 -DNX=1 -DNC=2", OK),
    ("copy", "-DNW=1 -DNX=2 -DNC=1", OK),
    *[("copy", f"-DMUT_{m}", BAD) for m in (
        "POSFIRST", "NOPOSCHECK", "NOWM", "POS_SEPARATE", "XA_AT_PREPARE", "XA_RESTART", "XA_SNAP", "XA_FILTER")],
    ("copy", "-DMARIADB -DNW=2 -DNX=1 -DNC=1", OK),
    ("copy", "-DMARIADB -DNW=1 -DNX=2 -DNC=1", OK),
    *[("copy", f"-DMARIADB -DMUT_{m}", BAD) for m in ("NO_DOUBT", "NO_RUNNING", "LIST_AT_ONCE")],
    ("cutover", f"-DSTART_OPEN -DREVERSE {ALONE} -DNCR=0 -DNRE=1", OK),
    ("cutover", f"-DSTART_OPEN -DREVERSE {ALONE} -DNCR=0 -DNRE=2", OK),
    ("cutover", f"-DSTART_OPEN -DREVERSE {ALONE} -DNCR=1 -DNRE=1", OK),
    ("cutover", f"-DSTART_OPEN -DREVERSE {MIX} -DNCR=0 -DNRE=1", OK),
    ("cutover", f"-DNOFILTER -DSTART_OPEN -DREVERSE {ALONE} -DNCR=0 -DNRE=1 -DMUT_KEEP_FWD", BAD),
]


def check(model, flags, expect, trace=False, minutes=15):
    work = pathlib.Path(tempfile.mkdtemp(prefix="model-"))
    try:
        for f in HERE.glob("*.pml"):
            shutil.copy(f, work)
        name = f"{model}.pml"
        subprocess.run(["spin", *flags.split(), "-a", name], cwd=work, check=True, capture_output=True, timeout=60)
        small = model != "cutover"
        how = ["-DBFS", "-DCOLLAPSE"] if not expect else ["-DHC4"]      # shortest counterexample | whole space, 8-byte hashes
        how += ["-DNOREDUCE"] if small else []
        subprocess.run(["gcc", "-O2", "-w", "-DSAFETY", "-DVECTORSZ=4096", "-DMEMLIM=8000", *how, "-o", "pan", "pan.c"], cwd=work, check=True)
        start = time.time()
        out = subprocess.run(["./pan", "-m1000000", "-w26", f"-Q{minutes}"], cwd=work, capture_output=True, text=True).stdout
        took = time.time() - start
        errors = int(re.search(r"errors: (\d+)", out).group(1))
        states = int(re.search(r"(\d+) states, stored", out).group(1))
        depth = int(re.search(r"depth reached (\d+)", out).group(1))
        why = re.search(r"pan:1: (.*) \(at depth (\d+)\)", out)
        complete = errors or "Search not completed" not in out
        good = (errors == 0) == expect and bool(complete)
        if trace:
            print(subprocess.run(["spin", *flags.split(), "-t", "-p", "-g", name], cwd=work, capture_output=True, text=True).stdout)
        print(f"{'ok ' if good else 'BAD'} {model:9} {flags:62} {'holds' if errors == 0 else 'counterexample':14} {states:>11,} states "
              f"depth {depth:<4} {took:6.1f} s {'' if complete else 'NOT COMPLETE'}{why.group(1)[:60] if why else ''}", flush=True)
        return good
    finally:
        shutil.rmtree(work)


def main(argv):
    if argv[:1] == ["-t"]:
        return check(argv[1], " ".join(argv[2:]), BAD, trace=True)
    picked = [c for c in CASES if not argv or argv[0] in c[0] + " " + c[1]]
    return all([check(*c) for c in picked])


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
