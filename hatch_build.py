"""Compiles the hot path with mypyc when a wheel is built with SHARDPROXY_COMPILE=1; else the wheel is pure Python.

The same source runs both ways. What is listed here is what every query passes through, and every change of rows that
move; it is compiled as one group, so that calls between its modules are direct.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HOT_PATH = (
    "shardproxy/protocol/mysql/binary.py",
    "shardproxy/protocol/mysql/response.py",
    "shardproxy/topology/keys.py",
    "shardproxy/topology/maps.py",
    "shardproxy/topology/redis_ring.py",
    "shardproxy/router/redis.py",
    "shardproxy/topology/sampler.py",
    "shardproxy/sql/last_integer.py",
    "shardproxy/session/session.py",
    "shardproxy/planner/cache.py",
    "shardproxy/backend/connection.py",
    "shardproxy/backend/pool.py",
    "shardproxy/backend/gateway.py",
    "shardproxy/merge/aggregates.py",
    "shardproxy/merge/concatenated.py",
    "shardproxy/merge/grouped.py",
    "shardproxy/merge/having.py",
    "shardproxy/merge/keys.py",
    "shardproxy/merge/ordered.py",
    "shardproxy/merge/rollup.py",
    "shardproxy/merge/stream.py",
    "shardproxy/executor/prepared.py",
    "shardproxy/executor/single.py",
    "shardproxy/frontend/mysql/connection.py",
    "shardproxy/frontend/mysql/pipeline.py",
    # Every Redis command.
    "shardproxy/protocol/redis/commands.py",
    "shardproxy/protocol/redis/replies.py",
    "shardproxy/backend/redis/slot.py",
    "shardproxy/backend/redis/link.py",
    "shardproxy/backend/redis/own.py",
    "shardproxy/backend/redis/nowhere.py",
    "shardproxy/executor/redis/joining.py",
    "shardproxy/frontend/redis/front.py",
    "shardproxy/frontend/redis/replies.py",
    "shardproxy/frontend/redis/many_keys.py",
    "shardproxy/frontend/redis/connection.py",
    "shardproxy/frontend/redis/own.py",
    "shardproxy/frontend/redis/about.py",
    "shardproxy/frontend/redis/channels.py",
    # Every change that follows a move.
    "shardproxy/reshard/binlog.py",
    "shardproxy/reshard/row_image.py",
    "shardproxy/reshard/temporal.py",
)
_SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="shardproxy-hot-path", ext_modules=mypycify({modules!r}, opt_level="3"))
"""


class CustomBuildHook(BuildHookInterface[Any]):
    """Called by hatchling for each build."""

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling."""
        return ["mypy>=1.14", "setuptools>=70"] if _wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put the compiled modules into the wheel, beside their sources."""
        if self.target_name != "wheel" or version == "editable" or not _wanted():
            return
        root = Path(self.root)
        build = Path(tempfile.mkdtemp(prefix="shardproxy-compile-"))
        self._build = build
        shutil.copytree(root / "shardproxy", build / "shardproxy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        (build / "setup.py").write_text(_SETUP.format(modules=["--ignore-missing-imports", *HOT_PATH]))
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(command, cwd=build, check=True)  # noqa: S603 — our own file
        for made in sorted(build.rglob("*.so")):
            where = made.relative_to(build)
            if where.parts[0] != "build":
                build_data["force_include"][str(made)] = str(where)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed for the build."""
        if hasattr(self, "_build"):
            shutil.rmtree(self._build, ignore_errors=True)


def _wanted() -> bool:
    return os.environ.get("SHARDPROXY_COMPILE") == "1"
