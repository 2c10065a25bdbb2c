"""What a statement is planned against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardproxy.sql.modes import SqlModes
from shardproxy.topology.model import Snapshot
from shardproxy.topology.schema import Catalog

if TYPE_CHECKING:
    from shardproxy.planner.query_cache import QueryCaching


@dataclass(frozen=True, slots=True)
class PlanContext:
    """snapshot: the map of the world; catalog: the servers' tables; schema: the session's default database;
    modes: how its text is read; mariadb: the servers are MariaDB (else MySQL); cached: tables (keyspace, name) of which
    writes make rows void before they run (the cache's strict mode); caching: which queries' answers may be kept."""

    snapshot: Snapshot
    catalog: Catalog
    schema: str | None
    modes: SqlModes
    mariadb: bool
    cached: frozenset[tuple[str, str]] = frozenset()
    caching: QueryCaching | None = None
