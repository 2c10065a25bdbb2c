"""The local cluster: shards of one primary and its replicas, and Redis nodes, started together and gone together."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import pymysql

from shardproxy.errors import LocalError
from shardproxy.local.flavors import Flavor, FlavorName, MySQL, flavor_named
from shardproxy.local.folders import records_folder
from shardproxy.local.ports import accepts, free_port
from shardproxy.local.process import Process
from shardproxy.local.records import Record, clean_stale, remove, write_record
from shardproxy.local.redis_node import RedisNode
from shardproxy.local.server import PROXY_PASSWORD, PROXY_USER, LocalServer
from shardproxy.local.templates import ensure_template, new_datadir
from shardproxy.local.valkey import valkey_command

_PORT_ATTEMPTS = 5
_Server = TypeVar("_Server", LocalServer, RedisNode)


@dataclass
class LocalShard:
    """One shard: `name` ("shard1", "shard2", …), its primary and its replicas, all running."""

    name: str
    primary: LocalServer
    replicas: list[LocalServer] = field(default_factory=list)

    @property
    def servers(self) -> list[LocalServer]:
        return [self.primary, *self.replicas]


@dataclass(frozen=True)
class ConfigFile:
    """A shardproxy.toml that `config_toml` wrote, and the free ports it names."""

    path: Path
    mysql_port: int
    admin_port: int


class LocalCluster:
    """`shards` primaries with `replicas` replicas each (GTID row replication), and `redis` Redis and
    `valkey` Valkey nodes, on 127.0.0.1.

    flavor          "mariadb" or "mysql" (9.x)
    root            parent of the cluster's folder; default: the cache. MySQL's data lie in the tree it is chrooted to.
    server_options  more options for every server, such as "--max-connections=2000"; they win over ours
    redis_options   the same for Redis, such as "--appendonly", "yes"

    Use it as a context manager, or call `start` and `stop`. Both may be called from any thread, not concurrently.
    """

    def __init__(
        self,
        flavor: FlavorName = "mariadb",
        shards: int = 2,
        replicas: int = 1,
        redis: int = 0,
        root: Path | None = None,
        server_options: Sequence[str] = (),
        valkey: int = 0,
        redis_options: Sequence[str] = (),
    ) -> None:
        if min(shards, replicas, redis, valkey) < 0:
            raise ValueError("shards, replicas, redis and valkey must not be negative")
        self.flavor: FlavorName = flavor
        self.shards: list[LocalShard] = []
        self.redis: list[RedisNode] = []
        self.valkey: list[RedisNode] = []
        self._shard_count = shards
        self._replica_count = replicas
        self._redis_count = redis
        self._valkey_count = valkey
        self._root = root
        self._server_options = tuple(server_options)
        self._redis_options = tuple(redis_options)
        self._id = "sp" + os.urandom(6).hex()
        self._flavor: Flavor | None = None
        self._record: Record | None = None
        self._processes: list[Process] = []
        self._idle: dict[LocalServer, pymysql.Connection] = {}

    @classmethod
    def single(
        cls, flavor: FlavorName = "mariadb", root: Path | None = None, server_options: Sequence[str] = ()
    ) -> LocalCluster:
        """One lone server (`.server`), for instance as the oracle that holds all rows."""
        return cls(flavor, shards=1, replicas=0, root=root, server_options=server_options)

    @property
    def id(self) -> str:
        """The cluster's name on this machine; its folders are named by it and its servers carry it as a mark."""
        return self._id

    @property
    def folder(self) -> Path:
        """The cluster's folder: a place for files that must vanish with it. It exists while the cluster runs."""
        return (self._root or records_folder()).absolute() / self._id

    @property
    def server(self) -> LocalServer:
        """The only server of a cluster made by `single`."""
        [shard] = self.shards
        return shard.primary

    @property
    def servers(self) -> list[LocalServer]:
        """All MySQL servers, primaries before their replicas."""
        return [server for shard in self.shards for server in shard.servers]

    def start(self) -> LocalCluster:
        """Start everything and wait until it serves and replicates. Raises LocalError; nothing is left running then.

        Ends clusters of dead owners first. The first start on a machine prepares templates and takes longer.
        """
        if self._record is not None:
            raise LocalError(f"cluster {self._id} is running already")
        clean_stale()
        folders = [self.folder]
        if self._shard_count:
            self._flavor = flavor_named(self.flavor)
            ensure_template(self._flavor)
            folders.append(self._data_home(self._flavor))
        self._record = write_record(self._id, list(dict.fromkeys(folders)))
        atexit.register(self.stop)
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End every process and remove every file of the cluster. Harmless when it does not run."""
        if self._record is None:
            return
        # The data are thrown away: there is nothing that a shutdown in order would save.
        for process in self._processes:
            process.kill()
        remove(self._record)
        self._record = None
        self._processes.clear()
        self._idle.clear()
        self.shards.clear()
        self.redis.clear()
        self.valkey.clear()
        atexit.unregister(self.stop)

    def __enter__(self) -> LocalCluster:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_replicated(self, timeout: float = 30.0) -> None:
        """Wait until every replica has applied what its primary has written by now.

        Raises LocalError after `timeout` seconds.
        """
        flavor = self._running_flavor()
        deadline = time.monotonic() + timeout
        for shard in self.shards:
            [(position,)] = self._ask(shard.primary, flavor.position())
            for replica in shard.replicas:
                left = max(deadline - time.monotonic(), 0.1)
                try:
                    [(outcome,)] = self._ask(replica, flavor.wait_for(), (position, left))
                except pymysql.err.MySQLError as error:
                    raise LocalError(f"{replica.name} cannot be asked for its position: {error}") from error
                if outcome != 0:
                    raise LocalError(
                        f"{replica.name} has not reached {position!r} of its primary within {timeout:g} s: "
                        f"{_replication_errors(replica)}"
                    )

    def idle_connection(self, server: LocalServer) -> pymysql.Connection:
        """A connection as root that is kept between its uses: a new one costs more than most questions do.

        Its taker has it alone, leaves the session as it was, and gives it back by `keep`. Raises pymysql's errors.
        """
        connection = self._idle.pop(server, None)
        if connection is not None:
            try:
                connection.ping()
            except (pymysql.err.MySQLError, OSError):
                connection.close()  # the server was started anew
            else:
                return connection
        opened: pymysql.Connection = server.connect()
        return opened

    def keep(self, server: LocalServer, connection: pymysql.Connection) -> None:
        """Give back what `idle_connection` gave."""
        self._idle[server] = connection

    def create_account(self, user: str, password: str) -> None:
        """Create `user`@'%' with all privileges but that of writing to replicas, on all servers.

        The primaries replicate it; returns when it is everywhere. Raises LocalError, pymysql's errors.
        """
        flavor = self._running_flavor()
        for shard in self.shards:
            with shard.primary.connect() as connection, connection.cursor() as cursor:
                cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (user, password))
                cursor.execute("GRANT ALL PRIVILEGES ON *.* TO %s@'%%'", (user,))
                for statement in flavor.respect_read_only():
                    cursor.execute(statement, (user,))
        self.wait_replicated()

    def program(
        self,
        name: str,
        command: Sequence[str],
        *,
        port: int | None = None,
        ready: Callable[[], bool] | None = None,
        environment: Mapping[str, str] | None = None,
        hint: str = "install it",
    ) -> Process:
        """A further program (the proxy, HAProxy, …) that ends with the cluster, not started.

        Arguments: see Process.
        """
        process = Process(
            name,
            command,
            log=self.folder / f"{name}.log",
            port=port,
            ready=ready,
            environment=environment,
            mark=self._id,
            hint=hint,
        )
        self._processes.append(process)
        return process

    def add_redis(self, name: str, options: Sequence[str] = ()) -> RedisNode:
        """One more Redis server, running, that ends with the cluster. options: see RedisNode. Raises LocalError."""
        return self._on_free_port(lambda port: RedisNode(name, self.folder / name, port, self._id, options=options))

    def add_sentinels(self, name: str, primary: RedisNode, count: int = 3) -> list[str]:
        """Addresses of running Redis sentinels that watch a primary and its replicas by this name, and end with the
        cluster. More than half of them make a replica the primary, half a second after the primary's death. They find
        each other, and the replicas, some seconds later. Raises LocalError."""
        ports = [free_port() for _ in range(count)]
        for port in ports:
            self.add_sentinel(name, primary, port, count // 2 + 1)
        return [f"{primary.host}:{port}" for port in ports]

    def add_sentinel(self, name: str, primary: RedisNode, port: int, quorum: int) -> None:
        """One more of them, at this port. quorum: how many must agree that the primary is dead."""
        folder = self.folder / f"{name}-sentinel-{port}"
        folder.mkdir()
        file = folder / "sentinel.conf"  # it writes there what it learns
        file.write_text(
            f"port {port}\nbind {primary.host}\ndir {folder}\n"
            f"sentinel monitor {name} {primary.host} {primary.port} {quorum}\n"
            f"sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"
        )
        command = ["redis-server", str(file), "--sentinel", "--set-proc-title", "no"]
        self.program(folder.name, command, port=port, hint="apt-get install redis-server").start()

    def tree_folder(self) -> Path:
        """A folder inside MySQL's tree that vanishes with the cluster, for files of programs that run there by chroot.

        Raises LocalError where MySQL 9 cannot run.
        """
        if self._record is None:
            raise LocalError(f"cluster {self._id} does not run")
        folder = MySQL().home / "run" / self._id
        if str(folder) not in self._record.folders:
            self._record = write_record(self._id, [*map(Path, self._record.folders), folder])
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def config_toml(
        self,
        keyspaces: str,
        *,
        proxy: Mapping[str, str | int] | None = None,
        backend: Mapping[str, str | int] | None = None,
        users: Mapping[str, Mapping[str, object]] | None = None,
        listen: Mapping[str, str | int | bool] | None = None,
        extra: str = "",
        name: str = "shardproxy.toml",
    ) -> ConfigFile:
        """Write a shardproxy.toml for this cluster into its folder, listening on free ports.

        keyspaces  TOML text with the [keyspaces.…] tables
        proxy      entries of [proxy]; default: two workers
        backend    entries of [backend] beyond user and password
        users      name → entries of [users.NAME]; default: `app` with password `app`
        listen     entries of [listen.mysql] beyond host and port
        extra      more TOML text, put at the end
        """
        mysql_port, admin_port = free_port(), free_port()
        if users is None:
            users = {"app": {"password": "app"}}
        tables: list[tuple[tuple[str, ...], Mapping[str, object]]] = [
            (("listen", "mysql"), {"host": "127.0.0.1", "port": mysql_port, **(listen or {})}),
            (("listen", "admin"), {"host": "127.0.0.1", "port": admin_port}),
            (("proxy",), {"workers": 2, **(proxy or {})}),
            (("backend",), {"user": PROXY_USER, "password": PROXY_PASSWORD, **(backend or {})}),
            *((("users", user), entries) for user, entries in users.items()),
            *(
                (
                    ("shards", shard.name),
                    {"primary": shard.primary.address, "replicas": [replica.address for replica in shard.replicas]},
                )
                for shard in self.shards
            ),
        ]
        text = "\n".join(_toml_table(path, entries) for path, entries in tables)
        file = self.folder / name
        file.write_text("\n".join([text, keyspaces, extra]))
        return ConfigFile(file, mysql_port, admin_port)

    # -- starting -----------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        with ThreadPoolExecutor(max_workers=8, thread_name_prefix="shardproxy-local") as pool:
            redis = [pool.submit(self._start_redis, number) for number in range(1, self._redis_count + 1)]
            program = valkey_command() if self._valkey_count else []
            valkey = [pool.submit(self._start_valkey, number, program) for number in range(1, self._valkey_count + 1)]
            servers = [
                [pool.submit(self._start_server, shard, number) for number in range(self._replica_count + 1)]
                for shard in range(1, self._shard_count + 1)
            ]
            # All results are fetched inside the pool, so that nothing still starts when an error stops the cluster.
            self.redis = [node.result() for node in redis]
            self.valkey = [node.result() for node in valkey]
            for number, futures in enumerate(servers, 1):
                primary, *replicas = [future.result() for future in futures]
                self.shards.append(LocalShard(f"shard{number}", primary, replicas))
            list(pool.map(self._replicate, self.shards))

    def _start_server(self, shard: int, number: int) -> LocalServer:
        flavor = self._running_flavor()
        name = f"shard{shard}-replica{number}" if number else f"shard{shard}-primary"
        folder = self._data_home(flavor) / name
        new_datadir(flavor, folder / "data")

        def on_port(port: int) -> LocalServer:
            server_id = shard * 100 + number
            command = flavor.server_command(folder / "data", port, server_id, shard, replica=number > 0)
            return LocalServer(
                name,
                [*command, *self._server_options],
                port=port,
                datadir=folder / "data",
                log=folder / "error.log",
                mark=self._id,
            )

        return self._on_free_port(on_port)

    def _start_redis(self, number: int) -> RedisNode:
        name = f"redis{number}"
        return self._on_free_port(
            lambda port: RedisNode(name, self.folder / name, port, self._id, options=self._redis_options)
        )

    def _start_valkey(self, number: int, program: Sequence[str]) -> RedisNode:
        name = f"valkey{number}"
        return self._on_free_port(lambda port: RedisNode(name, self.folder / name, port, self._id, program, "/tmp"))  # noqa: S108 — the tree's

    def _on_free_port(self, make: Callable[[int], _Server]) -> _Server:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            server = make(free_port())
            self._processes.append(server.process)
            try:
                server.process.start()
            except LocalError:
                # Ours is dead now; if the port still answers, somebody else took it before us: try another.
                if attempt == _PORT_ATTEMPTS or not accepts(server.port):
                    raise
                self._processes.remove(server.process)
            else:
                return server
        raise AssertionError("unreachable")

    def _replicate(self, shard: LocalShard) -> None:
        flavor = self._running_flavor()
        for replica in shard.replicas:
            with replica.connect() as connection, connection.cursor() as cursor:
                for statement in flavor.follow(shard.primary.port, PROXY_USER, PROXY_PASSWORD):
                    cursor.execute(statement)

    def _ask(self, server: LocalServer, sql: str, parameters: tuple[object, ...] = ()) -> Sequence[tuple[object, ...]]:
        connection = self.idle_connection(server)
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: Sequence[tuple[object, ...]] = cursor.fetchall()
        self.keep(server, connection)
        return rows

    def _data_home(self, flavor: Flavor) -> Path:
        return self.folder if flavor.name == "mariadb" else flavor.home / "run" / self._id

    def _running_flavor(self) -> Flavor:
        if self._flavor is None:
            raise LocalError(f"cluster {self._id} has no running MySQL servers")
        return self._flavor


def _toml_table(path: Sequence[str], entries: Mapping[str, object]) -> str:
    # JSON's strings, numbers, booleans and lists of strings are TOML's too; a quoted key may hold anything.
    title = ".".join(key if key.isidentifier() and key.isascii() else json.dumps(key) for key in path)
    return "\n".join([f"[{title}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items()), ""])


def _replication_errors(replica: LocalServer) -> str:
    with replica.connect() as connection, connection.cursor(pymysql.cursors.DictCursor) as cursor:
        cursor.execute("SHOW REPLICA STATUS")
        row = cursor.fetchone() or {}
    found = [f"{key}={row[key]!r}" for key in row if key.endswith(("_Running", "_Error")) and row[key]]
    return ", ".join(found) or "replication is not configured"
