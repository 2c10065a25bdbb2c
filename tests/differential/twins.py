"""Two lone servers in place of the sides: what they answer differently is no question to ask of a proxy.

The one plans as servers do; the other has other indexes, and none of the optimizer's shortcuts.
"""

from __future__ import annotations

from tests.differential.schema import Cell, Table
from tests.differential.sides import Sides

_INDEXES = (("users", "DROP KEY grp"), ("orders", "DROP KEY oid"), ("users", "ADD KEY (score, name)"),
            ("facts", "DROP KEY big, ADD KEY (colour, dbl)"), ("small", "ADD KEY (name)"), ("huge", "ADD KEY (v)"),
            ("audit", "ADD KEY (what)"), ("levels", "ADD KEY (uid)"))  # fmt: skip
_MARIADB = ("semijoin=off", "derived_merge=off", "subquery_cache=off",
            "firstmatch=off", "loosescan=off", "exists_to_in=off", "condition_pushdown_for_derived=off",
            "table_elimination=off", "split_materialized=off", "derived_with_keys=off")  # fmt: skip
_MYSQL = ("materialization=off", "semijoin=off", "derived_merge=off", "derived_condition_pushdown=off", "hash_join=off",
          "block_nested_loop=off", "condition_fanout_filter=off", "use_index_extensions=off",
          "skip_scan=off")  # fmt: skip


class Twins(Sides):
    """The other server stands where the proxy would."""

    def _start(self) -> None:
        [shard] = self.cluster.shards
        server = shard.primary
        self._shards = [shard.name]
        self._account = server.port, server.admin_user, server.admin_password
        self._stop = _nothing
        admin = self._admin[shard.name]
        switches = ",".join(_MARIADB if self.mariadb else _MYSQL)
        admin.query(f"SET GLOBAL optimizer_switch = '{switches}'")
        admin.query("SET GLOBAL optimizer_search_depth = 1")
        admin.query("SET GLOBAL optimizer_prune_level = 0")
        for database in ("rng", "hsh"):
            for table, change in _INDEXES:
                admin.query(f"ALTER TABLE {database}.{table} {change}")

    def _holds(self, name: str, table: Table) -> bool:
        return True

    def _home(self, table: Table, row: tuple[Cell, ...]) -> str:
        return ""

    def _strays(self, table: Table, cell: object, name: str) -> bool:
        return False


def _nothing(grace: float = 0.0) -> None:
    """Servers end with their cluster."""
