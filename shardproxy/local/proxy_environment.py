"""The environment in which tests and benches start a proxy: from the source, or from a compiled copy of it."""

from __future__ import annotations

import os
from pathlib import Path

import shardproxy

COMPILED = "SHARDPROXY_COMPILED"  # set by ./dev: folder with the package compiled by mypyc


def proxy_environment() -> dict[str, str]:
    """Variables for `python -m shardproxy.cli.proxy`. PYTHONSAFEPATH keeps the working folder out of the search."""
    folder = os.environ.get(COMPILED) or str(Path(shardproxy.__file__).parents[1])
    return {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}
