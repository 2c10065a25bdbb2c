"""What the benches configure: maps that are valid and even, results of the wanted size."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench import big_result, idle_clients
from bench.rig.interpreter import warning, work_us
from bench.rig.peers import keyspace_toml
from shardproxy.config import parse
from shardproxy.local import LocalCluster
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot


def _snapshot(keyspaces: str, shards: list[str]) -> Snapshot:
    data: dict[str, Any] = {
        "backend": {"user": "x", "password": "x"},
        "users": {"x": {"password": "x"}},
        "shards": {name: {"primary": f"127.0.0.1:{3000 + i}"} for i, name in enumerate(shards)},
        **tomllib.loads(keyspaces),
    }
    return build_snapshot(parse(data, base=Path("/")))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_ids_are_spread_evenly(count: int) -> None:
    names = [f"shard{i}" for i in range(1, count + 1)]
    cluster = cast(LocalCluster, SimpleNamespace(shards=[SimpleNamespace(name=name) for name in names]))
    snapshot = _snapshot(keyspace_toml(cluster, 9000), names)
    owners = [snapshot.keyspaces["sbtest"].map.lookup(i) for i in range(1, 9001)]
    assert [owners.count(i) for i in range(count)] == [9000 // count] * count


@pytest.mark.parametrize("keyspaces", [idle_clients._KEYSPACE, big_result._KEYSPACE])
def test_keyspaces_are_valid(keyspaces: str) -> None:
    assert len(_snapshot(keyspaces, ["shard1"]).keyspaces) == 1


def test_shapes_fit_into_the_stored_pieces() -> None:
    stored = big_result._PIECES
    for shape in big_result.SHAPES:
        rows = (1 << 30) // shape.row_bytes
        assert rows * shape.row_bytes == 1 << 30
        available = stored**2 if " JOIN " in shape.sql(1024) else stored
        assert rows <= available


def test_an_interpreter_is_as_quick_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from bench.rig import interpreter

    assert work_us(sys.executable) > 0
    times = {"python-here": 2.0, interpreter.SYSTEM_PYTHON: 1.0}
    monkeypatch.setattr(interpreter, "work_us", times.__getitem__)
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", sys.executable)
    times[sys.executable] = 1.0
    said = warning("python-here")
    assert said is not None
    assert "2.00 times as long" in said
    times["python-here"] = 1.1
    assert warning("python-here") is None
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", "/nonexistent/python3")
    assert warning("python-here") is None
