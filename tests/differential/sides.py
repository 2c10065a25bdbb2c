"""The two sides: one lone server, and a proxy over two shards, with the same rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.constants import Cap
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import KeyType, KeyValue, canonical_text
from shardproxy.topology.maps import UnmappedKey
from shardproxy.topology.model import Keyspace
from tests.differential.episodes import Episode
from tests.differential.schema import DATABASES, KEYSPACES, TABLES, Cell, Table, base_rows, load_statement
from tests.proxy import start_proxy
from tests.wire import RawClient

USER = {"diff": {"password": "diff", "reads": "primary"}}
_NAMES = re.compile(r"\b(" + "|".join(sorted({t.name for t in TABLES if t.kind != "view"})) + r")\b", re.IGNORECASE)


class Sides:
    """Both sides with base rows. `close` ends the proxy and drops the databases."""

    def __init__(self, cluster: LocalCluster, oracle: LocalServer) -> None:
        self.cluster = cluster
        self.mariadb = cluster.flavor == "mariadb"
        self._servers = {shard.name: shard.primary for shard in cluster.shards} | {"": oracle}
        self._admin = {name: _admin(server) for name, server in self._servers.items()}
        self._create()
        self.proxy = start_proxy(cluster, "differential", users=USER, keyspaces=KEYSPACES, proxy={"workers": 1})
        snapshot = build_snapshot(load(cluster.folder / "differential.toml", {}))
        self._keyspaces = snapshot.keyspaces
        self._shards = [shard.name for shard in snapshot.shards]
        self._oracle = oracle
        collations = self._admin[""].rows("SELECT id, character_set_name FROM information_schema.collations")
        self.charsets = {int(ident): str(charset) for ident, charset in collations if isinstance(ident, bytes)}
        for table in TABLES:
            self._load(table)

    def close(self) -> None:
        self.proxy.process.stop()
        for name, admin in self._admin.items():
            # The servers may have ended before: fixtures that follow the kind of server go together.
            for database in DATABASES if self._servers[name].running else ():
                admin.query(f"DROP DATABASE {database}")
            admin.close()

    def client(self, made: Episode) -> RawClient:
        """A new session on the proxy."""
        return self._client(self.proxy.port, "diff", "diff", made)

    def oracle_client(self, made: Episode) -> RawClient:
        """A new session on the lone server."""
        return self._client(self._oracle.port, self._oracle.admin_user, self._oracle.admin_password, made)

    def _client(self, port: int, user: str, password: str, made: Episode) -> RawClient:
        capabilities = int(Cap.FOUND_ROWS) if made.found_rows else 0
        return RawClient(port, user, password, made.database, capabilities=capabilities, deprecate_eof=not made.old_eof)

    # ── tables ──

    def _create(self) -> None:
        for name, admin in self._admin.items():
            admin.query("SET timestamp = 1700000000")  # clocks of the base rows are alike
            for database in DATABASES:
                admin.query(f"CREATE DATABASE {database} CHARACTER SET utf8mb4")
            for table in TABLES:
                if not name or table.shard in ("", name):
                    admin.query(f"USE {table.database}")
                    no_pad = "utf8mb4_nopad_bin" if self.mariadb else "utf8mb4_0900_bin"
                    admin.query(table.definition.replace("{no_pad}", no_pad))

    def _load(self, table: Table) -> None:
        """Give a table its base rows on every server."""
        if table.kind == "view":
            return
        rows = list(base_rows(table))
        for name, admin in self._admin.items():
            if name and table.shard not in ("", name):
                continue
            mine = rows if not name else [row for row in rows if self._home(table, row) in ("", name)]
            admin.query(f"DELETE FROM {table.database}.{table.name}")
            if mine:
                admin.query(load_statement(table, mine))
            if table.counting:
                admin.query(f"ALTER TABLE {table.database}.{table.name} AUTO_INCREMENT = 50")

    def _home(self, table: Table, row: tuple[Cell, ...]) -> str:
        """The shard of a row; "" for all."""
        if table.kind != "sharded":
            return ""
        cell = row[[c.name for c in table.columns].index(table.key)]
        assert cell is not None
        keyspace = self._keyspaces[table.database]
        return self._shards[keyspace.map.lookup(_key(keyspace, cell))]

    def mentioned(self, database: str, texts: Iterable[str]) -> list[Table]:
        """Tables that the texts may have changed."""
        names = {name.lower() for text in texts for name in _NAMES.findall(text)}
        texts = list(texts)
        databases = {database}
        for name in DATABASES:
            if any(f"{name}." in text or f"{name}`" in text or f"USE {name}" in text for text in texts):
                databases.add(name)
        return [t for t in TABLES if t.kind != "view" and t.name in names and t.database in databases]

    def reload(self, tables: Iterable[Table]) -> None:
        """Give the tables their base rows back."""
        for table in tables:
            self._load(table)

    def difference(self, table: Table) -> str:
        """In what the rows of a table differ: the lone server's from those of all shards; "" when they do not."""
        text = f"SELECT {', '.join(c.name for c in table.columns)} FROM {table.database}.{table.name}"
        wanted = sorted(map(repr, self._admin[""].rows(text)))
        found: list[str] = []
        if table.kind == "reference":
            copies = [self._admin[name].rows(f"SELECT * FROM {table.database}.{table.name}") for name in self._shards]
            if any(sorted(map(repr, copy)) != sorted(map(repr, copies[0])) for copy in copies):
                return f"{table.database}.{table.name}: the copies differ: {copies}"
        for name in self._shards:
            if table.shard not in ("", name):
                continue
            rows = self._admin[name].rows(text)
            if table.kind == "reference":
                if sorted(map(repr, rows)) != wanted:
                    return f"{table.database}.{table.name} on {name}: " + _difference(wanted, sorted(map(repr, rows)))
                continue
            found += map(repr, rows)
            if table.kind == "sharded":
                strayed = [row for row in rows if self._strays(table, row, name)]
                if strayed:
                    return f"{table.database}.{table.name}: row {strayed[0]!r} is on {name}, where nobody looks for it"
        if table.kind != "reference" and sorted(found) != wanted:
            return f"{table.database}.{table.name}: " + _difference(wanted, sorted(found))
        return ""

    def _strays(self, table: Table, row: Sequence[object], name: str) -> bool:
        cell = row[[c.name for c in table.columns].index(table.key)]
        assert isinstance(cell, bytes)
        keyspace = self._keyspaces[table.database]
        try:
            key = _key(keyspace, int(cell) if keyspace.key_type is KeyType.INT else cell)
            return self._shards[keyspace.map.lookup(key)] != name
        except UnmappedKey:
            return True


def _admin(server: LocalServer) -> RawClient:
    return RawClient(server.port, server.admin_user, server.admin_password, None)


def _key(keyspace: Keyspace, cell: int | str | bytes) -> KeyValue:
    raw = cell.encode() if isinstance(cell, str) else cell
    if isinstance(raw, bytes) and keyspace.key_type is KeyType.TEXT:
        return canonical_text(raw)
    return raw


def _difference(wanted: list[str], found: list[str]) -> str:
    missing = [row for row in wanted if row not in found]
    surplus = [row for row in found if row not in wanted]
    if not missing and not surplus:
        surplus = sorted({row for row in found if found.count(row) != wanted.count(row)})
    return f"only on the lone server {missing[:4]}, only on the shards {surplus[:4]}"
