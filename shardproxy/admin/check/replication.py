"""Rules about replicas: they follow the right primary, they run, they are near, nobody else writes to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardproxy.admin.check.facts import Replication, ServerFacts
from shardproxy.admin.check.findings import Finding, error, warning
from shardproxy.config import Config
from shardproxy.topology.model import Role, Snapshot


def replication_findings(config: Config, snapshot: Snapshot, facts: Sequence[ServerFacts]) -> Iterator[Finding]:
    """All findings about replicas. `facts`: one for each server of the snapshot."""
    primaries = {f.server.shard: f for f in facts if f.server.role is Role.PRIMARY}
    for fact in facts:
        if fact.server.role is not Role.REPLICA or fact.error is not None:
            continue
        for what, message in fact.refused:
            yield error(
                fact.server.name,
                f"{what} cannot be read: {message}",
                "GRANT REPLICATION CLIENT (MySQL) or REPLICA MONITOR (MariaDB) ON *.* to the proxy's account",
            )
        if not fact.refused:
            yield from _replica(config, fact, primaries.get(fact.server.shard))


def _replica(config: Config, fact: ServerFacts, primary: ServerFacts | None) -> Iterator[Finding]:
    name, status = fact.server.name, fact.replication
    if status is None:
        yield error(
            name,
            f"it does not replicate from anywhere, but stands as a replica of {fact.server.shard}",
            "set up replication, or take it out of the file: its reads would be stale for ever",
        )
        return
    if primary is not None and primary.error is None and not _follows(status, primary):
        yield error(
            name,
            f"it replicates from another server (server_id {status.source_id}) than {primary.server.name} "
            f"(server_id {primary.variables.get('server_id', '?')})",
            "point its replication at the shard's primary, or move it to its own shard in the file",
        )
    stopped = [word for word, runs in (("receiving", status.receiving), ("applying", status.applying)) if not runs]
    if stopped:
        why = f": {status.last_error}" if status.last_error else ""
        yield error(name, f"replication is not {' and not '.join(stopped)}{why}", "repair it, then START REPLICA")
    elif status.lag is not None and status.lag > config.backend.max_lag:
        yield warning(
            name,
            f"it is {status.lag:g} s behind; reads are sent to it only up to {config.backend.max_lag:g} s",
            "let it catch up, or raise backend.max_lag",
        )
    if not status.by_gtid:
        yield warning(
            name,
            "it replicates by file and position, not by GTID",
            "let it find its position by GTID (MySQL: SOURCE_AUTO_POSITION = 1; MariaDB: Using_Gtid not No)",
        )
    if fact.variables.get("read_only", "").upper() not in ("ON", "1"):
        yield warning(
            name,
            "read_only is off: a stray write would make it differ from its primary",
            "SET GLOBAL read_only = ON, and the same in the server's option file",
        )


def _follows(status: Replication, primary: ServerFacts) -> bool:
    uuid = primary.variables.get("server_uuid", "")
    if status.source_uuid and uuid:
        return status.source_uuid == uuid
    return status.source_id == primary.variables.get("server_id", "")
