"""Entries of the lookup indexes of `uni.members`: filled before the first episode, and as the rows after each write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from shardproxy.admin.lookup.backfill import backfill
from shardproxy.admin.lookup.work import prepare
from shardproxy.backend.control import Credentials
from shardproxy.config import load
from shardproxy.local import LocalCluster
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.lookup import entry_value
from tests.differential.schema import Table
from tests.wire import RawClient, Result

INDEXES = ("email", "code", "grp,nick")
_READ = (
    "SELECT index_name, HEX(value), CAST(shard_key AS CHAR), CAST(version AS CHAR) FROM _shardproxy.lookup "
    "WHERE keyspace = 'uni'"
)
Everywhere = Callable[[Mapping[str, Sequence[str]]], dict[str, list[Result]]]


class Entries:
    """admin: clients of all servers by name, "" of the lone one."""

    def __init__(self, cluster: LocalCluster, admin: Mapping[str, RawClient]) -> None:
        self._cluster = cluster
        self._admin = admin
        self._shards = [shard.name for shard in cluster.shards]
        self._base: dict[str, list[str]] = {}
        blank_counts = cluster.flavor == "mysql"  # its collation of `email` does not pad
        email = "email" if blank_counts else "TRIM(TRAILING ' ' FROM email)"
        self._rows = (
            f"SELECT uid, HEX(WEIGHT_STRING({email})), CAST(code AS CHAR), CAST(grp AS CHAR), "
            "HEX(WEIGHT_STRING(TRIM(TRAILING ' ' FROM nick))) FROM uni.members"
        )

    def fill(self, name: str) -> None:
        """Make the entries of the base rows, as `shardctl lookup backfill` does. name: of the configuration."""
        settings = load(self._cluster.folder / name, {})

        async def each() -> None:
            for index in INDEXES:
                snapshot, credentials = build_snapshot(settings), Credentials.of(settings)
                work = await prepare(snapshot, credentials, 30, "uni.members", index, 1000)
                assert (await backfill(work, lambda rows: None)).ready

        asyncio.run(each())
        for shard in self._shards:
            values = ", ".join(
                f"('uni', '{text(index)}', x'{text(value)}', '{text(key)}', {text(version)})"
                for index, value, key, version in self._admin[shard].rows(_READ)
            )
            self._base[shard] = ["DELETE FROM _shardproxy.lookup WHERE keyspace = 'uni'"]
            if values:
                self._base[shard].append(
                    "INSERT INTO _shardproxy.lookup (keyspace, index_name, value, shard_key, version) VALUES " + values
                )

    def reset(self, tables: Iterable[Table]) -> dict[str, list[str]]:
        """Statements by server that go with giving these tables their base rows."""
        return self._base if any(table.name == "members" for table in tables) else {}

    def wrong(self, everywhere: Everywhere) -> str:
        """In what the entries differ from the rows; "" when they do not."""
        found = everywhere(dict.fromkeys(self._shards, (_READ, self._rows)))
        entries = sorted(
            (text(index), text(value), text(key))
            for shard in self._shards
            for index, value, key, _ in found[shard][0].rows
        )
        wanted = []
        for shard in self._shards:
            for uid, email, code, group, nick in found[shard][1].rows:
                if email is not None:
                    wanted.append(("members(email)", text(email), text(uid)))
                if code is not None:
                    wanted.append(("members(code)", text(code).encode().hex().upper(), text(uid)))
                if group is not None and nick is not None:
                    value = entry_value((text(group).encode(), bytes.fromhex(text(nick))))
                    wanted.append(("members(grp,nick)", value.hex().upper(), text(uid)))
        wanted.sort()
        if entries == wanted:
            return ""
        lacking = [entry for entry in wanted if entry not in entries]
        surplus = [entry for entry in entries if entry not in wanted]
        return f"uni.members: entries are missing {lacking[:4]}, have no row {surplus[:4]}"


def text(value: object) -> str:
    assert isinstance(value, bytes | str | int), value
    return value.decode() if isinstance(value, bytes) else str(value)
