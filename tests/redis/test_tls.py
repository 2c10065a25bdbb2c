"""TLS on both sides of the Redis port."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from shardproxy.local import LocalCluster
from shardproxy.local.ports import free_port
from tests.redis.proxied import redis_proxy

NODES = ("one", "two")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem for 127.0.0.1 with key.pem, and other.pem, which has signed nothing here."""
    made: Path = tmp_path_factory.mktemp("tls")
    for name in ("cert", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", made / ("key.pem" if name == "cert" else "other-key.pem"), "-out", made / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[tuple[LocalCluster, dict[str, dict[str, object]]]]:
    """A cluster whose nodes speak TLS with users of their own, and the tables that say so."""
    with LocalCluster("mariadb", shards=1, replicas=0) as cluster:
        tables: dict[str, dict[str, object]] = {}
        for name in NODES:
            port = free_port()
            options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file", str(folder / "cert.pem")]
            options += ["--tls-key-file", str(folder / "key.pem"), "--tls-ca-cert-file", str(folder / "cert.pem")]
            with cluster.add_redis(name, options).connect() as direct:
                direct.execute_command("ACL", "SETUSER", "proxy", "on", ">pass", "~*", "&*", "+@all")
                direct.execute_command("ACL", "SETUSER", "default", "off")
            tables[name] = {"address": f"127.0.0.1:{port}"}
        yield cluster, tables


LOGIN = {"user": "proxy", "password": "pass", "tls": "required"}


@pytest.mark.parametrize("verified", [False, True])
def test_nodes_over_tls_by_user_and_password(
    folder: Path, nodes: tuple[LocalCluster, dict[str, dict[str, object]]], verified: bool
) -> None:
    cluster, tables = nodes
    entries = {**LOGIN, "tls_ca": str(folder / "cert.pem")} if verified else LOGIN
    with redis_proxy(cluster, f"inside-{verified}", redis=entries, nodes=tables) as proxy:
        for protocol in (2, 3):
            with proxy.connect(protocol=protocol) as client:
                keys = {f"k{i}": "v" * (i * 1000) for i in range(50)}
                assert client.mset(keys) is True
                assert [len(value) for value in client.mget(list(keys))] == [i * 1000 for i in range(50)]


def test_a_node_with_another_certificate_is_not_trusted(
    folder: Path, nodes: tuple[LocalCluster, dict[str, dict[str, object]]]
) -> None:
    cluster, tables = nodes
    entries = {**LOGIN, "tls_ca": str(folder / "other.pem")}
    with (
        redis_proxy(cluster, "distrusts", redis=entries, nodes=tables) as proxy,
        proxy.connect() as client,
        pytest.raises(redis.ResponseError, match=r"node (one|two) \(.*certificate verify failed.*was not sent"),
    ):
        client.set("k", "v")


def test_clients_over_tls(folder: Path, nodes: tuple[LocalCluster, dict[str, dict[str, object]]]) -> None:
    cluster, tables = nodes
    listen = {"tls_cert": str(folder / "cert.pem"), "tls_key": str(folder / "key.pem")}
    with redis_proxy(cluster, "outside", redis=LOGIN, nodes=tables, listen=listen, users={"default": "word"}) as proxy:
        for protocol in (2, 3):
            with proxy.connect(
                ssl=True, ssl_ca_certs=str(folder / "cert.pem"), password="word", protocol=protocol
            ) as client:
                assert client.set("big", "x" * 5_000_000) is True
                assert len(client.get("big")) == 5_000_000
                with client.pipeline(transaction=False) as pipe:
                    for i in range(1000):
                        pipe.set(f"p{i}", i)
                    assert pipe.execute() == [True] * 1000
        with pytest.raises((redis.ConnectionError, ssl.SSLError)):
            proxy.connect(password="word").ping()
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            proxy.connect(ssl=True, ssl_ca_certs=str(folder / "other.pem"), password="word").ping()
