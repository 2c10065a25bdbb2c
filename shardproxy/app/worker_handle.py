"""A worker as its supervisor has it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Sequence

from shardproxy.app.channel import Channel


class WorkerHandle:
    """One worker slot: its process, channel and listening sockets. The sockets outlive the process."""

    def __init__(self, index: int, listener: socket.socket, redis: Sequence[socket.socket] = ()) -> None:
        self.index = index
        self.listener = listener
        self.redis_listeners = redis
        self.process: subprocess.Popen[bytes] | None = None
        self.channel: Channel | None = None
        self.ready = False
        self.heard = False  # see app.silence
        self.silent = 0
        self.started = 0.0
        self.proving = asyncio.Lock()  # its answers count in their order
        self.redis_name = ""  # what the names of its connections to Redis nodes begin with
        self.coordinator = ""  # identity of the process in transactions over shards; each start has a new one

    @property
    def slot(self) -> str:
        return str(self.index)
