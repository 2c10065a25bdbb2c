"""A table's key changes end to end, and back, while clients write rows and change the column that becomes the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy.local import LocalCluster
from shardproxy.local.flavors import FlavorName
from shardproxy.topology.keys import KeyType
from shardproxy.topology.map_document import Stream, TableMove
from shardproxy.topology.streams import streams_of_all
from shardproxy.topology.workflow import Plan
from tests.rebalance.test_move import KEYSPACES, Scene, running
from tests.rebalance.test_shard_table import MAP, NAMES, Notes, there_and_back_and_for_good

BY_ACCOUNT = KEYSPACES.replace("entry = {", 'note = { key = "account" }, entry = {')
# The key that comes is in the primary key: a row that goes to another shard is never in the way of its own copy there.
NOTE = (
    "CREATE TABLE note (id BIGINT NOT NULL AUTO_INCREMENT, account BIGINT NOT NULL, tenant BIGINT NOT NULL, "
    "writer INT NOT NULL, no INT NOT NULL, changed INT NOT NULL DEFAULT 0, PRIMARY KEY (id, tenant), KEY (account), "
    "KEY (tenant))"
)
PLAN = Plan(
    goal="test",
    streams=tuple(Stream.of(stream, NAMES) for stream in streams_of_all(MAP, KeyType.INT)),
    table=TableMove(name="note", key="tenant", before="account"),
)


class Tenants(Notes):
    """Notes of an account and a tenant; every fourth goes to another tenant.

    That may take it to another shard, and a read of both in the moment of the commit sees it on none, or on both.
    """

    between = 2

    def _write(self, cursor: Any, number: int, step: int) -> None:
        account, tenant = step * 37 % 3000, step * 53 % 3000
        if step % 3 == 0:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE account SET n = n + 1 WHERE id = %s", (account // 25 * 25,))
        values = (account, tenant, number, step)
        cursor.execute("INSERT INTO note (account, tenant, writer, no) VALUES (%s, %s, %s, %s)", values)
        ident = cursor.lastrowid
        if step % 3 == 0:
            cursor.execute("COMMIT")
        assert ident not in self.told
        self.told[ident] = values
        if step % 4 == 0:
            other = (tenant + 1000) % 3000
            cursor.execute("UPDATE note SET tenant = %s, changed = 1 WHERE id = %s", (other, ident))
            assert cursor.rowcount == 1
            self.told[ident] = (account, other, number, step)
            self.changed[ident] = 1
        self.done += 1


def check(scene: Scene, notes: Notes) -> None:
    """Each note that a client was told of once, on its tenant's shard."""
    assert not notes.errors, notes.errors
    found = {}
    for place, rows in enumerate(scene.on_shards("SELECT id, account, tenant, writer, no, changed FROM note")):
        for ident, *values, changed in rows:
            assert ident not in found
            assert place == MAP.lookup(values[1])
            assert changed == notes.changed.get(ident, 0)
            found[ident] = tuple(values)
    assert found == notes.told


@pytest.fixture
def scene(flavor: FlavorName) -> Iterator[Scene]:
    notes = dict.fromkeys(range(3), NOTE)
    with LocalCluster(flavor, shards=3) as cluster, running(cluster, BY_ACCOUNT, notes) as proxies:
        yield Scene(cluster, proxies, cluster.folder / "left.toml")


def test_a_table_gets_another_key_gets_its_own_back_and_the_other_again(scene: Scene) -> None:
    with Tenants(scene.proxies) as notes:
        there_and_back_and_for_good(scene, notes, PLAN)
    print(f"{notes.done} notes")
    check(scene, notes)
