"""What the supervisor asks of the operating system: sockets, the end of processes, limits."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess

from shardproxy import logs
from shardproxy.config import Config
from shardproxy.errors import ConfigError

log = logs.Log("supervisor")


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process to end; its status."""
    if process.poll() is not None:
        return process.returncode
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    descriptor = os.pidfd_open(process.pid)

    def readable() -> None:
        if not over.done():
            over.set_result(None)

    loop.add_reader(descriptor, readable)
    try:
        await over
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def listen(config: Config) -> list[socket.socket]:
    """One listening socket a worker for the MySQL port. Raises ConfigError."""
    mysql = config.listen.mysql
    return _listen("listen.mysql", mysql.host, mysql.port, config.proxy.workers)


def listen_redis(config: Config) -> list[list[socket.socket]]:
    """For each worker, its sockets for Redis clients: TCP, and the Unix socket that all share. Raises ConfigError."""
    redis = config.listen.redis
    if config.redis is None:
        return [[] for _ in range(config.proxy.workers)]
    sockets = [[sock] for sock in _listen("listen.redis", redis.host, redis.port, config.proxy.workers)]
    if redis.socket:
        shared = _listen_unix(str(config.resolve(redis.socket)))
        for own in sockets:
            own.append(shared.dup())
        shared.close()
    return sockets


def _listen_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # left by a proxy that was killed
            except FileNotFoundError:
                pass
            else:
                raise ConfigError(f"listen.redis.socket: another program listens on {path}")
        sock.bind(path)
        sock.listen(4096)
    except OSError as error:
        sock.close()
        raise ConfigError(f"listen.redis.socket: cannot listen on {path}: {error.strerror or error}") from error
    return sock


def _listen(table: str, host: str, port: int, count: int) -> list[socket.socket]:
    """Sockets on one port (SO_REUSEPORT): the kernel spreads clients over them."""
    sockets: list[socket.socket] = []
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        probe = socket.socket(family, kind, proto)
        with probe:  # another program on the port would share it silently: SO_REUSEPORT joins sockets of one user
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        for _ in range(count):
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            sock.listen(4096)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(
            f"{table}: cannot listen on {host}:{port}: {error.strerror}; is another program on that port?"
        ) from error
    return sockets


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def raise_file_limit(config: Config) -> None:
    """Every client and server connection is a file: ask for as many as the limits allow."""
    servers = sum(1 + len(shard.replicas) for shard in config.shards.values())
    ports = 1 if config.redis is None else 2
    wanted = ports * config.proxy.max_clients + config.backend.pool_size * servers + 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < wanted:
            log.warning("file_limit", wanted=wanted, limit=limit, fix="raise the hard limit of open files (ulimit -Hn)")
