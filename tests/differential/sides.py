"""The two sides: one lone server, and a proxy over three shards, with the same rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from shardproxy.config import load
from shardproxy.local import LocalCluster, LocalServer
from shardproxy.protocol.mysql.constants import Cap, Com
from shardproxy.protocol.mysql.values import Value
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.keys import KeyType, KeyValue, canonical_text
from shardproxy.topology.maps import UnmappedKey
from shardproxy.topology.model import Keyspace
from shardproxy.topology.moves import Phase
from tests.differential import moves
from tests.differential.entries import Entries
from tests.differential.episodes import Episode
from tests.differential.schema import DATABASES, KEYSPACES, TABLES, Cell, Table, base_rows, load_statement
from tests.moving import with_moves
from tests.proxy import eventually, start_proxy
from tests.wire import RawClient, Result

USER = {"diff": {"password": "diff", "reads": "primary"}}
_MORE_RESULTS = 8
_NAMES = re.compile(r"\b(" + "|".join(sorted({t.name for t in TABLES if t.kind != "view"})) + r")\b", re.IGNORECASE)


class Sides:
    """Both sides with base rows. `close` ends the proxy and drops the databases.

    phase: rows are on their way between the shards, so that two have them; None: they are not.
    """

    def __init__(self, cluster: LocalCluster, oracle: LocalServer, phase: Phase | None = None) -> None:
        self.cluster = cluster
        self._phase = phase
        self.mariadb = cluster.flavor == "mariadb"
        self._servers = {shard.name: shard.primary for shard in cluster.shards} | {"": oracle}
        self._admin = {name: _admin(server) for name, server in self._servers.items()}
        self._entries: Entries | None = None
        self._create()
        self._start()
        self._oracle = oracle
        collations = self._admin[""].rows("SELECT id, character_set_name FROM information_schema.collations")
        self.charsets = {int(ident): str(charset) for ident, charset in collations if isinstance(ident, bytes)}
        self._base: dict[Table, list[str]] = {}
        tables = [table for table in TABLES if table.kind != "view"]
        self.reload(tables)
        self._entries = Entries(cluster, self._admin)
        self._entries.fill("differential.toml")
        with self.client(Episode("uni", ())) as client:
            route = "EXPLAIN ROUTE SELECT * FROM members WHERE code = 5"
            eventually(lambda: len(client.rows(route)) == 1, "statements are routed by lookup indexes", 30)
        for table in tables:
            columns = ", ".join(c.name for c in table.columns)
            rows = self._admin[""].rows(f"SELECT {columns} FROM {table.database}.{table.name}")
            self._base[table] = sorted(map(repr, rows))
        self._hidden = {(name, table): self._hidden_rows(name, table) for name in self._shards for table in tables}

    def _start(self) -> None:
        """Start the proxy. Clients find it by `port`, `user` and `password`."""
        self.cluster.config_toml(KEYSPACES, users=USER, name="differential.toml")
        snapshot = build_snapshot(load(self.cluster.folder / "differential.toml", {}))
        moving = None if self._phase is None else moves.moves_of(snapshot, self._phase)
        proxy = start_proxy(
            self.cluster, "differential", users=USER, keyspaces=KEYSPACES, proxy={"workers": 1}, moves=moving
        )
        snapshot = with_moves(snapshot, moving or {})
        self._keyspaces = snapshot.keyspaces
        self._shards = [shard.name for shard in snapshot.shards]
        self.admin_port = proxy.admin_port
        self._stop = proxy.process.stop
        self._account = proxy.port, "diff", "diff"

    def close(self) -> None:
        self._stop()
        for name, admin in self._admin.items():
            # The servers may have ended before: fixtures that follow the kind of server go together.
            for database in DATABASES if self._servers[name].running else ():
                admin.query(f"DROP DATABASE {database}")
            admin.close()

    def client(self, made: Episode) -> RawClient:
        """A new session on the proxy."""
        return self._client(*self._account, made)

    def oracle_client(self, made: Episode) -> RawClient:
        """A new session on the lone server."""
        return self._client(self._oracle.port, self._oracle.admin_user, self._oracle.admin_password, made)

    def _client(self, port: int, user: str, password: str, made: Episode) -> RawClient:
        capabilities = int(Cap.FOUND_ROWS) if made.found_rows else 0
        # The collation that a server has by default: MySQL goes back to that on COM_RESET_CONNECTION, the proxy to the
        # handshake's, as MariaDB does.
        return RawClient(port, user, password, made.database, capabilities=capabilities,
                         deprecate_eof=not made.old_eof, charset=45 if self.mariadb else 255)  # fmt: skip

    # ── tables ──

    def _create(self) -> None:
        no_pad = "utf8mb4_nopad_bin" if self.mariadb else "utf8mb4_0900_bin"
        blind = "utf8mb4_uca1400_ai_ci" if self.mariadb else "utf8mb4_0900_ai_ci"
        texts: dict[str, list[str]] = {}
        for name in self._admin:
            made = texts[name] = ["SET timestamp = 1700000000"]  # clocks of the base rows are alike
            made += [f"CREATE DATABASE {database} CHARACTER SET utf8mb4" for database in DATABASES]
            for table in TABLES:
                if self._holds(name, table):
                    definition = table.definition.replace("{no_pad}", no_pad).replace("{blind}", blind)
                    made += [f"USE {table.database}", definition]
        self._everywhere(texts)

    def _everywhere(self, texts: Mapping[str, Sequence[str]]) -> dict[str, list[Result]]:
        """Statements for each server, in one round trip that all servers work on at once."""
        asked = {name: [text for text in texts[name] if text] for name in texts}
        names = [name for name in asked if asked[name]]
        for name in names:
            self._admin[name].send(bytes((Com.QUERY,)) + ";".join(asked[name]).encode())
        found = {}
        for name in names:
            results = [self._admin[name].result()]
            while results[-1].status & _MORE_RESULTS:
                results.append(self._admin[name].result())
            found[name] = results
        return found

    def reload(self, tables: Iterable[Table]) -> None:
        """Give the tables their base rows."""
        texts: dict[str, list[str]] = {name: [] for name in self._admin}
        for table in tables:
            rows = list(base_rows(table))
            for name in self._admin:
                if not self._holds(name, table) or table.kind == "view":
                    continue
                mine = rows if not name else [row for row in rows if self._home(table, row) in ("", name)]
                if name and table.kind == "sharded":
                    mine += [row for row in moves.old_rows(table) if self._hides(name, table, self._key(table, row))]
                texts[name] += [f"DELETE FROM {table.database}.{table.name}", load_statement(table, mine)]
                if table.counting:
                    texts[name].append(f"ALTER TABLE {table.database}.{table.name} AUTO_INCREMENT = 50")
        for name, more in self._entries.reset(tables).items() if self._entries is not None else ():
            texts[name] += more
        for made in texts.values():
            if made:
                made[:] = ["BEGIN", *made, "COMMIT"]
        self._everywhere(texts)

    def _holds(self, name: str, table: Table) -> bool:
        """Whether a server, "" for the lone one, has the table."""
        return not name or table.shard in ("", name)

    def _home(self, table: Table, row: tuple[Cell, ...]) -> str:
        """The shard of a row; "" for all."""
        if table.kind != "sharded":
            return ""
        return self._shards[self._keyspaces[table.database].map.lookup(self._key(table, row))]

    def _key(self, table: Table, row: tuple[Cell, ...]) -> KeyValue:
        cell = row[[c.name for c in table.columns].index(table.key)]
        assert cell is not None
        return _key(self._keyspaces[table.database], cell)

    def _hides(self, name: str, table: Table, key: KeyValue) -> bool:
        """Whether rows of this key are on their way, and those of this shard not the ones that count."""
        move = self._keyspaces[table.database].move
        hidden = () if move is None else move.hidden.get(self._shards.index(name), ())
        return any(key in keys for keys in hidden)

    def _hidden_rows(self, name: str, table: Table) -> list[list[Value]]:
        """What a shard has of hidden keys, as long as nobody has touched it."""
        if table.kind != "sharded":
            return []
        columns = [c.name for c in table.columns]
        rows = self._admin[name].rows(f"SELECT {', '.join(columns)} FROM {table.database}.{table.name}")
        return self._apart(name, table, columns, rows)[1]

    def _touched(self, name: str, table: Table, columns: list[str], hidden: list[list[Value]]) -> str:
        """In what the rows that a shard hides are others than before; "" when they are not."""
        kept = [table.columns.index(table.column(column)) for column in columns]
        before = sorted(repr([row[at] for at in kept]) for row in self._hidden[name, table])
        now = sorted(map(repr, hidden))
        return "" if now == before else f"{name} has touched rows that it hides: {_difference(before, now)}"

    def _apart(
        self, name: str, table: Table, columns: list[str], rows: list[list[Value]]
    ) -> tuple[list[list[Value]], list[list[Value]]]:
        """The rows that count, and those that are hidden."""
        seen: list[list[Value]] = []
        hidden: list[list[Value]] = []
        at = columns.index(table.key)
        for row in rows:
            (hidden if self._hides(name, table, self._key_sent(table, row[at])) else seen).append(row)
        return seen, hidden

    def _key_sent(self, table: Table, cell: Value) -> KeyValue:
        """The key from what a server sends."""
        assert isinstance(cell, bytes)
        keyspace = self._keyspaces[table.database]
        return _key(keyspace, int(cell) if keyspace.key_type is KeyType.INT else cell)

    def mentioned(self, database: str, texts: Iterable[str]) -> list[Table]:
        """Tables that the texts may have changed."""
        names = {name.lower() for text in texts for name in _NAMES.findall(text)}
        texts = list(texts)
        databases = {database}
        for name in DATABASES:
            if any(f"{name}." in text or f"{name}`" in text or f"USE {name}" in text for text in texts):
                databases.add(name)
        return [t for t in TABLES if t.kind != "view" and t.name in names and t.database in databases]

    def differences(self, tables: Sequence[Table], uncounted: bool = False) -> tuple[str, list[Table]]:
        """(in what rows differ: the lone server's from those of all shards, "" when they do not; tables that have other
        rows than their base rows).

        uncounted: values that AUTO_INCREMENT columns of sharded tables got are not compared, for the shards' numbers
        are others than one server's.
        """
        texts: dict[str, list[str]] = {name: [] for name in self._admin}
        columns: dict[Table, list[str]] = {}
        for table in tables:
            left_out = table.counting if uncounted and table.kind == "sharded" else ""
            columns[table] = [c.name for c in table.columns if c.name != left_out]
            for name in self._admin:
                if self._holds(name, table):
                    listing = ", ".join(columns[table])
                    # All columns of reference tables: clocks of the copies must be alike too.
                    more = ", t.*" if name and table.kind == "reference" else ""
                    texts[name].append(f"SELECT {listing}{more} FROM {table.database}.{table.name} t")
        answers = {name: iter(results) for name, results in self._everywhere(texts).items()}
        wrong, changed = "", []
        for table in tables:
            found = {name: next(answers[name]).rows for name in self._admin if self._holds(name, table)}
            wanted = found.pop("")
            if sorted(map(repr, wanted)) != self._base.get(table):
                changed.append(table)
            wrong = wrong or self._wrong(table, columns[table], wanted, found)
        if self._entries is not None and any(table.name == "members" for table in tables):
            wrong = wrong or self._entries.wrong(self._everywhere)
        return wrong, changed

    def _wrong(
        self, table: Table, columns: list[str], lone: list[list[Value]], shards: dict[str, list[list[Value]]]
    ) -> str:
        """In what the rows of a table differ; "" when they do not."""
        wanted = sorted(map(repr, lone))
        where = f"{table.database}.{table.name}"
        if table.kind == "reference":
            copies = [sorted(map(repr, rows)) for rows in shards.values()]
            if any(copy != copies[0] for copy in copies):
                return f"{where}: the copies differ: {copies}"
            shards = {name: [row[: len(columns)] for row in rows] for name, rows in shards.items()}
            found = sorted(map(repr, next(iter(shards.values()))))
        else:
            for name in shards if table.kind == "sharded" else ():
                shards[name], hidden = self._apart(name, table, columns, shards[name])
                changed = self._touched(name, table, columns, hidden)
                if changed:
                    return f"{where}: {changed}"
            found = sorted(repr(row) for rows in shards.values() for row in rows)
        if found != wanted:
            return f"{where}: " + _difference(wanted, found)
        for name, rows in shards.items() if table.kind == "sharded" else ():
            strayed = [row for row in rows if self._strays(table, row[columns.index(table.key)], name)]
            if strayed:
                return f"{where}: row {strayed[0]!r} is on {name}, where nobody looks for it"
        return ""

    def _strays(self, table: Table, cell: Value, name: str) -> bool:
        try:
            return self._shards[self._keyspaces[table.database].map.lookup(self._key_sent(table, cell))] != name
        except UnmappedKey:
            return True


def _admin(server: LocalServer) -> RawClient:
    multi = int(Cap.MULTI_STATEMENTS | Cap.MULTI_RESULTS)
    return RawClient(server.port, server.admin_user, server.admin_password, None, capabilities=multi)


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
