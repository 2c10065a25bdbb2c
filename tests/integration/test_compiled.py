"""The hot path compiled by mypyc passes the same unit tests as its source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from shardproxy.local.proxy_environment import COMPILED

ROOT = Path(__file__).parents[2]
# Tests of what hatch_build.HOT_PATH lists, and of what stands on it.
MIRRORED = (
    "tests/unit/protocol", "tests/unit/topology", "tests/unit/planner", "tests/unit/router", "tests/unit/session",
    "tests/unit/sql/test_last_integer.py",
)  # fmt: skip


def test_the_compiled_hot_path_passes_its_unit_tests() -> None:
    folder = os.environ.get(COMPILED)
    assert folder, f"./dev test sets {COMPILED}; by hand: SHARDPROXY_COMPILE=1 pip install --target FOLDER --no-deps ."
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((folder, str(ROOT))), PYTHONSAFEPATH="1")
    wanted = [name for name in MIRRORED if (ROOT / name).exists()]
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    check = (
        "import sys, shardproxy.protocol.mysql.response as r; "
        "assert not r.__file__.endswith('.py'), r.__file__; "
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check, *options, *wanted],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
