"""Client libraries, unchanged, through the proxy over three nodes: what applications do with them, and redis-cli."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.folders import cache_folder, locked
from tests.redis.proxied import RedisProxy, redis_proxy

HIREDIS = "3.4.0"
IOREDIS = "5.6.1"
HERE = Path(__file__).parent / "libraries"


@pytest.fixture(scope="module")
def proxy() -> Iterator[RedisProxy]:
    with LocalCluster("mariadb", shards=1, replicas=0, redis=3) as cluster, redis_proxy(cluster) as running:
        yield running


def library(name: str, install: Sequence[str]) -> Path:
    """The folder in the cache where a library is; installed, whole or not at all, when it is not there. `{}` in
    `install`: the folder."""
    folder = cache_folder() / name
    with locked(name):
        if not folder.exists():
            made = folder.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            done = subprocess.run([w.replace("{}", str(made)) for w in install], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made.rename(folder)
    return folder


def run(command: Sequence[str], environment: Mapping[str, str], text: str = "") -> str:
    done = subprocess.run(
        command,
        env={"PATH": os.environ["PATH"], **environment},
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("parser", ["python", "hiredis"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_redis_py(proxy: RedisProxy, protocol: int, parser: str) -> None:
    path = [str(HERE.parents[2])]
    if parser == "hiredis":  # redis-py uses it when it is there, so it must not be there for other tests
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        path.append(str(library(f"hiredis-{HIREDIS}", [*pip, "--target", "{}", f"hiredis=={HIREDIS}"])))
    tour = [sys.executable, "-m", "tests.redis.libraries.tour", str(proxy.port), str(protocol), parser]
    assert run(tour, {"PYTHONPATH": ":".join(path)}) == "done\n"


def test_ioredis(proxy: RedisProxy) -> None:
    npm = ["npm", "install", "--prefix", "{}", "--no-audit", "--no-fund", "--ignore-scripts", f"ioredis@{IOREDIS}"]
    folder = library(f"ioredis-{IOREDIS}", npm)
    assert run(["node", str(HERE / "tour.mjs"), str(proxy.port)], {"IOREDIS": str(folder)}) == "done\n"


@pytest.mark.parametrize("options", [[], ["-3"]])
def test_redis_cli(proxy: RedisProxy, options: list[str]) -> None:
    cli = ["redis-cli", "-p", str(proxy.port), *options]

    def ask(*words: str, text: str = "") -> list[str]:
        return run([*cli, *words], {}, text).splitlines()

    assert ask("FLUSHALL") == ["OK"]
    # As for a mass insertion: without waiting for replies, and the end is an ECHO of its own.
    piped = ask("--pipe", text="".join(f"SET cli:{n} {n}\r\n" for n in range(5000)))
    assert piped[-1] == "errors: 0, replies: 5000"
    assert len(ask("--scan", "--pattern", "cli:*")) == 5000
    assert ask("DBSIZE") == ["5000"]
    session = [
        "MULTI",
        "INCR {a}n",
        "INCR {a}n",
        "EXEC",
        "EVAL 'return ARGV[1]' 1 k v",
        "RPUSH q e",
        "BLPOP q 1",
        "GET",
    ]
    shown = ask(text="\n".join(session) + "\n")
    assert shown[:6] == ["OK", "QUEUED", "QUEUED", "1", "2", "v"]
    assert shown[6:9] == ["1", "q", "e"] and "wrong number of arguments" in shown[9]
    assert re.search(r"Biggest +string found .*cli:", "\n".join(ask("--bigkeys"))) is not None
    assert ask("-x", "SET", "cli:in", text="from stdin") == ["OK"] and ask("GET", "cli:in") == ["from stdin"]
