"""A local etcd cluster of one or three members, on free loopback ports."""

from __future__ import annotations

import atexit
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from shardproxy.errors import LocalError
from shardproxy.local.folders import records_folder
from shardproxy.local.ports import free_port
from shardproxy.local.process import Process
from shardproxy.local.records import Record, clean_stale, remove, write_record

_PORT_ATTEMPTS = 5
_HOST = "127.0.0.1"


class EtcdMember:
    """One etcd on 127.0.0.1:`port`."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def name(self) -> str:
        """Its name in the cluster: "etcd1", "etcd2", …"""
        return self.process.name

    @property
    def address(self) -> str:
        """host:port, as configuration files want it."""
        return f"{_HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://{self.address}"

    def healthy(self) -> bool:
        """Whether it answers, and the cluster has a leader."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:  # noqa: S310 — our own URL
                return bool(json.load(answer).get("health") == "true")
        except (OSError, ValueError, urllib.error.URLError):
            return False


class LocalEtcd:
    """`members` etcd servers (1 or 3) that form one cluster. Use it as a context manager, or call `start` and `stop`.

    server_options: more options for every member, such as "--quota-backend-bytes=16777216".

    What a killed owner leaves behind is ended by the next local cluster that starts, as with LocalCluster.
    """

    def __init__(self, members: int = 1, root: Path | None = None, server_options: Sequence[str] = ()) -> None:
        if members not in (1, 3):
            raise ValueError("an etcd cluster for tests has 1 or 3 members")
        self.members: list[EtcdMember] = []
        self._count = members
        self._root = root
        self._server_options = tuple(server_options)
        self._id = "sp" + os.urandom(6).hex()
        self._record: Record | None = None

    @property
    def folder(self) -> Path:
        """The cluster's folder; it exists while the cluster runs."""
        return (self._root or records_folder()).absolute() / self._id

    @property
    def endpoints(self) -> list[str]:
        """host:port of every member."""
        return [member.address for member in self.members]

    def start(self) -> LocalEtcd:
        """Start all members and wait until they have a leader. Raises LocalError; nothing is left running then."""
        if self._record is not None:
            raise LocalError(f"etcd cluster {self._id} is running already")
        clean_stale()
        self._record = write_record(self._id, [self.folder])
        atexit.register(self.stop)
        try:
            for attempt in range(1, _PORT_ATTEMPTS + 1):
                try:
                    self._start_all(self.folder / str(attempt))
                    break
                except LocalError:  # somebody else may have taken a port
                    self._kill_all()
                    if attempt == _PORT_ATTEMPTS:
                        raise
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every member and remove every file. Harmless when it does not run."""
        if self._record is None:
            return
        self._kill_all()
        remove(self._record)
        self._record = None
        atexit.unregister(self.stop)

    def __enter__(self) -> LocalEtcd:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start_all(self, folder: Path) -> None:
        ports = [(free_port(), free_port()) for _ in range(self._count)]
        names = [f"etcd{number}" for number in range(1, self._count + 1)]
        peers = [f"{name}=http://{_HOST}:{peer}" for name, (_, peer) in zip(names, ports, strict=True)]
        for name, (client, peer) in zip(names, ports, strict=True):
            self.members.append(self._member(folder / name, name, client, peer, ",".join(peers)))
        # A member is ready when the cluster has a leader, which takes the others: all start at once.
        with ThreadPoolExecutor(max_workers=self._count, thread_name_prefix="shardproxy-etcd") as pool:
            for started in [pool.submit(member.process.start, 30.0) for member in self.members]:
                started.result()

    def _member(self, folder: Path, name: str, client: int, peer: int, cluster: str) -> EtcdMember:
        folder.mkdir(parents=True, exist_ok=True)
        listens, peers = f"http://{_HOST}:{client}", f"http://{_HOST}:{peer}"
        member: EtcdMember
        process = Process(
            name,
            [
                "etcd",
                *("--name", name, "--data-dir", str(folder / "data")),
                *("--listen-client-urls", listens, "--advertise-client-urls", listens),
                *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
                *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
                *("--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "warn"),
                *self._server_options,
            ],
            log=folder / "etcd.log",
            ready=lambda: member.healthy(),
            mark=self._id,
            hint="apt-get install etcd-server",
        )
        member = EtcdMember(process, client)
        return member

    def _kill_all(self) -> None:
        for member in self.members:
            member.process.kill()
        self.members.clear()
