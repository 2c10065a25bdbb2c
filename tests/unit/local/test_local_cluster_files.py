"""The cluster's configuration file, its names and its refusals, without any server."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from shardproxy.config import load
from shardproxy.errors import LocalError
from shardproxy.local import LocalCluster, LocalServer, LocalShard


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHARDPROXY_CACHE", str(tmp_path / "cache"))


def server(name: str, port: int, folder: Path) -> LocalServer:
    return LocalServer(name, ["mariadbd"], port=port, datadir=folder, log=folder / "log")


def test_an_empty_cluster_has_a_folder_while_it_runs() -> None:
    cluster = LocalCluster(shards=0)
    assert not cluster.folder.exists()
    with cluster:
        assert cluster.folder.is_dir()
        with pytest.raises(LocalError, match="running already"):
            cluster.start()
    assert not cluster.folder.exists()
    cluster.stop()  # harmless


def test_config_toml(tmp_path: Path) -> None:
    with LocalCluster(shards=0) as cluster:
        cluster.shards.append(LocalShard("shard1", server("p", 1001, tmp_path), [server("r", 1002, tmp_path)]))
        file = cluster.config_toml(
            '[keyspaces.shop]\nkey_type = "int"',
            proxy={"workers": 1},
            users={"o'neil": {"password": 'a "b" ü', "keyspaces": ["shop"], "read_only": True}},
            listen={"require_tls": False},
            extra="[extra]\nx = 1",
        )
        content = tomllib.loads(file.path.read_text())
    assert content["listen"]["mysql"] == {"host": "127.0.0.1", "port": file.mysql_port, "require_tls": False}
    assert content["listen"]["admin"] == {"host": "127.0.0.1", "port": file.admin_port}
    assert file.mysql_port != file.admin_port
    assert content["proxy"] == {"workers": 1}
    assert content["backend"] == {"user": "shardproxy", "password": "shardproxy"}
    assert content["users"] == {"o'neil": {"password": 'a "b" ü', "keyspaces": ["shop"], "read_only": True}}
    assert content["shards"] == {"shard1": {"primary": "127.0.0.1:1001", "replicas": ["127.0.0.1:1002"]}}
    assert content["keyspaces"] == {"shop": {"key_type": "int"}}
    assert content["extra"] == {"x": 1}


def test_the_proxy_accepts_the_file(tmp_path: Path) -> None:
    keyspaces = """
        [keyspaces.shop]
        key_type = "int"
        map = "hash"
        ring = {shard1 = 1}
        [keyspaces.shop.tables]
        users = {key = "uid"}
    """
    with LocalCluster(shards=0) as cluster:
        cluster.shards.append(LocalShard("shard1", server("p", 1001, tmp_path), [server("r", 1002, tmp_path)]))
        file = cluster.config_toml(keyspaces)
        config = load(file.path, {})
    assert config.listen.mysql.port == file.mysql_port
    assert list(config.shards) == ["shard1"]


def test_config_toml_defaults() -> None:
    with LocalCluster(shards=0) as cluster:
        content = tomllib.loads(cluster.config_toml("").path.read_text())
    assert content["proxy"] == {"workers": 2}
    assert content["users"] == {"app": {"password": "app"}}


def test_refusals() -> None:
    with pytest.raises(ValueError, match="negative"):
        LocalCluster(shards=-1)
    with pytest.raises(ValueError, match="flavor must be"), LocalCluster("oracle"):  # type: ignore[arg-type]
        pass
    with pytest.raises(LocalError, match="no running MySQL servers"):
        LocalCluster().wait_replicated()
