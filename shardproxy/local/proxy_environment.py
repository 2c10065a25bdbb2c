"""How tests and benches start a proxy: from the source, or from a compiled copy of it, and until it is ready."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import shardproxy

COMPILED = "SHARDPROXY_COMPILED"  # set by ./dev: folder with the package compiled by mypyc


def proxy_environment() -> dict[str, str]:
    """Variables for `python -m shardproxy.cli.proxy`. PYTHONSAFEPATH keeps the working folder out of the search."""
    folder = os.environ.get(COMPILED) or str(Path(shardproxy.__file__).parents[1])
    return {"PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}


def is_ready(admin_port: int) -> bool:
    """Whether the proxy with this admin port on loopback takes clients by now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
