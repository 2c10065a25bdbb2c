"""Records of clusters: who is alive, what is stale, what is removed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardproxy.local.folders import cache_folder, records_folder
from shardproxy.local.process import MARK
from shardproxy.local.records import Record, clean_stale, processes_of, write_record


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHARDPROXY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bystander() -> Iterator[int]:
    """Pid of a process that carries the mark of cluster "spdead"."""
    with subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "spdead"}) as process:
        yield process.pid
        process.kill()


def dead(record: Record) -> Record:
    """The same record as if written by an owner whose pid now belongs to somebody else."""
    other = dataclasses.replace(record, started=record.started - 1)
    record.path.write_text(json.dumps(dataclasses.asdict(other)))
    return other


def test_a_record_of_ours_is_alive_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "spalive"
    folder.mkdir()
    record = write_record("spalive", [folder])
    assert record.owner_alive()
    assert clean_stale() == []
    assert folder.exists()
    assert record.path.exists()


def test_a_reused_pid_is_not_the_owner(tmp_path: Path) -> None:
    assert not dead(write_record("spdead", [tmp_path])).owner_alive()


def test_an_earlier_boot_is_dead_and_a_foreign_namespace_is_not(tmp_path: Path) -> None:
    record = write_record("spany", [tmp_path])
    assert not dataclasses.replace(record, boot="another").owner_alive()
    assert dataclasses.replace(record, namespace="pid:[1]", pid=1, started=0).owner_alive()


def test_stale_clusters_lose_processes_folders_and_record(tmp_path: Path, bystander: int) -> None:
    folder = tmp_path / "spdead"
    (folder / "data").mkdir(parents=True)
    record = dead(write_record("spdead", [folder]))
    assert processes_of("spdead") == [bystander]
    assert clean_stale() == ["spdead"]
    assert processes_of("spdead") == []
    assert not folder.exists()
    assert not record.path.exists()


def test_a_longer_id_is_another_cluster(bystander: int) -> None:
    assert processes_of("spdea") == []
    assert processes_of("spdead") == [bystander]


def test_a_folder_that_does_not_carry_the_id_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "home"
    precious.mkdir()
    dead(write_record("spdead", [precious]))
    assert clean_stale() == ["spdead"]
    assert precious.exists()


def test_damaged_records_are_dropped() -> None:
    for name, text in (("a", "{"), ("b", '{"id": "x"}'), ("c", "[1]")):
        (records_folder() / f"{name}.json").write_text(text)
    assert clean_stale() == []
    assert list(records_folder().glob("*.json")) == []


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SHARDPROXY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/shardproxy"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home/.cache/shardproxy"
