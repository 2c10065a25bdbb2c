"""A real twemproxy, and rings by ketama whose nodes are called by the names by which it knows them."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from shardproxy.local.ports import free_port
from shardproxy.local.process import Process
from shardproxy.protocol.redis.encode import command
from shardproxy.topology.ketama import Continuum, Server, cuts_of, owners_of
from shardproxy.topology.redis_ring import KetamaRing

KEYS = [
    b"",
    *(b"key:%d" % n for n in range(1500)),
    *(b"{user%d}:%d" % (n % 100, n) for n in range(500)),
    *(b"a[%d]b$%d$" % (n, n % 7) for n in range(500)),
    *(bytes([n, 255 - n, 97]) for n in range(256)),
    *(b"\xff" * n + b"\x80" for n in range(40)),
    *(b"{}a", b"a{}b", b"{", b"}", b"{}", b"}{", b"{a", b"a}", b"{a}{b}", b"{{a}}", b"{}{a}", b"[]", b"$$", b"$$a$"),
    *(f"ключ:{n}".encode() for n in range(100)),
]


def continuum(weights: Mapping[str, int]) -> Continuum:
    return Continuum(servers=tuple([Server(name, name, weight) for name, weight in weights.items()]))


def ketama_ring(weights: Mapping[str, int], tag: bytes = b"") -> KetamaRing:
    """The place of a node is that in `weights`."""
    one = continuum(weights)
    cuts, order = cuts_of([one]), {name: n for n, name in enumerate(weights)}
    return KetamaRing(cuts, [order[name] for name in owners_of(one, cuts)], tag)


def run_nutcracker(folder: Path, text: str, port: int) -> Process:
    """A running twemproxy with this configuration; port: its last pool's."""
    (folder / "nutcracker.yml").write_text(text)
    process = Process(
        "nutcracker",
        ["nutcracker", "-c", str(folder / "nutcracker.yml"), "-s", str(free_port()), "-a", "127.0.0.1"],
        log=folder / "nutcracker.log",
        port=port,
        hint="apt-get install nutcracker",
    )
    process.start()
    return process


def exchange(port: int, requests: Sequence[Sequence[bytes]], size: int) -> bytes:
    """So many bytes of replies, asked for without redis-py."""
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as replies:
        client.sendall(b"".join(command(words) for words in requests))
        return replies.read(size)
