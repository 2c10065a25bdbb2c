"""Rules of preflight: what would make a move fail, or go wrong. Errors refuse it; warnings are for people to weigh.

Pure functions from the plan and the facts to findings, like the rules of `shardctl check`, several of which are used
here as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from shardproxy.admin.check import servers
from shardproxy.admin.check.facts import ServerFacts, TableFacts
from shardproxy.admin.check.findings import Finding, Severity, error, in_order, warning
from shardproxy.admin.check.keys import sharded_table
from shardproxy.admin.check.replication import replication_findings
from shardproxy.admin.check.tables import differences
from shardproxy.admin.rebalance.ask import MoveFacts
from shardproxy.config import Config
from shardproxy.topology.carried import entries_left, has_lookups
from shardproxy.topology.goals import Change
from shardproxy.topology.model import Keyspace, Role, Snapshot, Table, TableKind
from shardproxy.topology.table_goals import ShardTable

_SHORTEST_RETENTION = 3600.0  # seconds of binlog that a move wants at least
Contents = Mapping[int, Mapping[str, tuple[int, ...] | None]]  # shard → reference table → checksum, None: not known


@dataclass(frozen=True, slots=True)
class Case:
    """All that the rules look at. snapshot: before the move, with the added shards; facts: of all servers that were
    asked; asked: of the primaries, by shard; needed: shard → bytes that it gets; seconds: about how long it takes."""

    config: Config
    snapshot: Snapshot
    change: Change
    facts: Sequence[ServerFacts]
    asked: Mapping[int, MoveFacts]
    contents: Contents
    needed: Mapping[int, int]
    seconds: float

    @property
    def keyspace(self) -> Keyspace:
        return self.snapshot.keyspaces[self.change.keyspace]

    @property
    def sources(self) -> tuple[int, ...]:
        return tuple(sorted({stream.source for stream in self.change.streams}))

    @property
    def targets(self) -> tuple[int, ...]:
        return tuple(sorted({stream.target for stream in self.change.streams}))

    @property
    def involved(self) -> tuple[int, ...]:
        return tuple(sorted({*self.sources, *self.targets}))

    @property
    def sharded(self) -> list[Table]:
        return [table for table in self.keyspace.tables.values() if table.kind is TableKind.SHARDED]

    def name(self, shard: int) -> str:
        return self.snapshot.shards[shard].name

    def server(self, shard: int) -> str:
        return self.snapshot.shards[shard].primary.name

    def primary(self, shard: int) -> ServerFacts | None:
        """The facts of a shard's primary, None when it did not answer."""
        wanted = self.server(shard)
        return next((fact for fact in self.facts if fact.server.name == wanted and fact.error is None), None)

    def table(self, shard: int, name: str) -> TableFacts | None:
        fact = self.primary(shard)
        return fact.tables.get((self.keyspace.name, name)) if fact else None


def preflight(case: Case) -> list[Finding]:
    """Every finding, errors first."""
    found = [
        error(
            fact.server.name,
            f"cannot be asked: {fact.error}",
            "start it, or correct its address; the proxy's account (backend.user) must exist on it",
        )
        for fact in case.facts
        if fact.error is not None
    ]
    found += _servers(case)
    for shard in case.involved:
        found += _binlog(case, shard)
        found += _account(case, shard)
    found += _tables(case)
    found += _keyspace(case)
    return in_order(found)


def _servers(case: Case) -> Iterator[Finding]:
    """Settings, replicas, durability."""
    answered = [fact for fact in case.facts if fact.error is None]
    primaries = [fact for fact in answered if fact.server.role is Role.PRIMARY]
    for rule in (servers.one_flavor, servers.no_server_twice, servers.equal_settings):
        yield from rule(case.config, case.snapshot, answered)
    for rule in (servers.writable_primaries, servers.strict_mode, servers.durable_commits):
        for finding in rule(case.config, case.snapshot, primaries):
            yield replace(finding, severity=Severity.ERROR)  # a row that is changed or lost here is lost in the move
    yield from replication_findings(case.config, case.snapshot, case.facts)
    for fact in primaries:
        for variable, why in (
            ("sync_binlog", "a crash of the machine may lose events of rows that are there"),
            ("innodb_flush_log_at_trx_commit", "a crash of the machine may lose rows whose events are there"),
        ):
            value = fact.variables.get(variable, "1")
            if value not in ("0", "1") or (value == "0" and variable == "sync_binlog"):
                yield warning(
                    fact.server.name,
                    f"{variable} is {value}: {why}; then source and target differ",
                    f"SET GLOBAL {variable} = 1, at least during the move",
                )
    packets = {fact.server.name: int(fact.variables.get("max_allowed_packet", 0)) for fact in primaries}
    for source in case.sources:
        for target in case.targets:
            one, two = (packets.get(case.server(shard), 0) for shard in (source, target))
            if one and two and two < one:
                yield error(
                    case.server(target),
                    f"max_allowed_packet is {two}, and {one} on {case.server(source)}: a large row would not get in",
                    f"SET GLOBAL max_allowed_packet = {one}",
                )


def _binlog(case: Case, shard: int) -> Iterator[Finding]:
    """The binlog of sources is read for the move, that of targets for the way back."""
    fact, asked = case.primary(shard), case.asked.get(shard)
    if fact is None:
        return
    for finding in servers.binlog_for_moving(case.config, case.snapshot, [fact]):
        yield replace(finding, severity=Severity.ERROR)
    name = fact.server.name
    if fact.variables.get("binlog_row_value_options"):
        yield error(
            name,
            "binlog_row_value_options is PARTIAL_JSON: changes of JSON values are in the binlog in part only",
            "SET GLOBAL binlog_row_value_options = ''",
        )
    if fact.variables.get("binlog_order_commits", "ON").upper() not in ("ON", "1"):
        yield error(
            name,
            "binlog_order_commits is OFF: commits may become visible in another order than the binlog has",
            "SET GLOBAL binlog_order_commits = ON",
        )
    retention = float(fact.variables.get("binlog_expire_logs_seconds", "0") or 0)
    purges = fact.variables.get("binlog_expire_logs_auto_purge", "ON").upper() in ("ON", "1")
    needed = max(2 * case.seconds, _SHORTEST_RETENTION)
    if purges and 0 < retention < needed:
        yield error(
            name,
            f"binlog_expire_logs_seconds is {retention:.0f}: binlogs may be purged before the move has read them (it "
            f"takes about {case.seconds:.0f} s)",
            f"SET GLOBAL binlog_expire_logs_seconds = {needed:.0f} or more, until the move is complete",
        )
    if asked and asked.filters:
        yield error(
            name,
            f"the binlog leaves databases out ({asked.filters}): changes would be lost",
            "start the server without binlog-do-db and binlog-ignore-db",
        )


def _account(case: Case, shard: int) -> Iterator[Finding]:
    fact, asked = case.primary(shard), case.asked.get(shard)
    if fact is None or asked is None:
        return
    name, user = fact.server.name, case.config.rebalance.user or case.config.backend.user
    wanted = [({"REPLICATION SLAVE"}, "REPLICATION SLAVE", "read the binlog", asked.rights)]
    if fact.is_mariadb:
        status = {"BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"}
        kill = {"CONNECTION ADMIN", "SUPER"}
        wanted.append((status, "BINLOG MONITOR", "learn its position", asked.rights))
    else:
        status, kill = {"REPLICATION CLIENT", "SUPER"}, {"CONNECTION_ADMIN", "SUPER"}
        wanted.append((status, "REPLICATION CLIENT", "learn its position", asked.rights))
        wanted.append(({"LOCK TABLES"}, "LOCK TABLES", "take an exact snapshot", asked.database_rights))
        wanted.append(({"XA_RECOVER_ADMIN"}, "XA_RECOVER_ADMIN", "wait for prepared transactions", asked.rights))
    wanted.append((kill, sorted(kill)[0], "end the connections of a proxy that does not answer", asked.rights))
    if case.config.rebalance.user:
        why = "lock the account of a proxy that does not answer"
        wanted.append(({"CREATE USER"}, "CREATE USER", why, asked.rights))
    if case.config.rebalance.bypass == "refuse":
        why = "refuse writes past the proxies (rebalance.bypass)"
        wanted.append(({"TRIGGER"}, "TRIGGER", why, asked.database_rights))
        if fact.variables.get("log_bin_trust_function_creators", "OFF").upper() not in ("ON", "1"):
            why += "; or SET GLOBAL log_bin_trust_function_creators = 1"
            wanted.append(({"SUPER"}, "SUPER", why, asked.rights))
    wanted.append(({"PROCESS"}, "PROCESS", "see the connections of a proxy that does not answer", asked.rights))
    for any_of, grant, why, has in wanted:
        if not has & {*any_of, "ALL PRIVILEGES"}:
            on = f"`{case.keyspace.name}`.*" if grant in ("LOCK TABLES", "TRIGGER") else "*.*"
            yield error(name, f"{user} lacks {grant}: it is needed to {why}", f"GRANT {grant} ON {on} TO '{user}'@…")
    if asked.missing:
        joins = shard in set(case.change.members) - set(case.keyspace.shards)
        level = warning if joins else error  # `run` makes them on a shard that joins, before it asks
        yield level(name, f"the bookkeeping tables are missing ({asked.missing})", "shardctl migrate")
    if has_lookups(case.keyspace) and not fact.is_mariadb and not asked.own_rights & {"LOCK TABLES", "ALL PRIVILEGES"}:
        yield error(
            name,
            f"{user} lacks LOCK TABLES on `_shardproxy`: it is needed to take an exact snapshot of lookup entries",
            f"GRANT LOCK TABLES ON `_shardproxy`.* TO '{user}'@…",
        )
    for statement, message in asked.refused:
        database = "_shardproxy" if "_shardproxy." in statement else case.keyspace.name
        yield error(
            name,
            f"{user} may not do what a move does ({statement}): {message}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{database}`.* TO '{user}'@…; a lock: try again",
        )
    if asked.same_account:
        yield warning(
            name,
            f"{asked.same_account} other connections use our account {user}: a proxy that does not answer at the "
            "switch cannot be shut out by its account, so the switch would be given up",
            "give each proxy an account of its own (backend.user), and shardctl another: [rebalance] user",
        )
    needed = case.needed.get(shard, 0)
    if asked.free is not None and asked.free < needed * 1.2:
        yield error(
            name,
            f"{asked.free:,} bytes are free on its disk, and about {needed:,} come",
            "make room: the rows need their place once more, and the binlog of the copy too",
        )


def _tables(case: Case) -> Iterator[Finding]:
    for table in case.sharded:
        where = f"{case.keyspace.name}.{table.name}"
        joining = set(case.change.members) - set(case.keyspace.shards)
        if case.change.table is not None:
            joining = set(case.targets) if isinstance(case.change.table, ShardTable) else set()
            yield from _lone_table(case, where, table)
        for shard in case.involved:
            if shard in joining:
                continue  # the move makes it there
            if case.primary(shard) is not None and case.table(shard, table.name) is None:
                yield error(where, f"it does not exist on {case.name(shard)}", "create it there as on the others")
        for stream in case.change.streams:
            one, two = (case.table(shard, table.name) for shard in (stream.source, stream.target))
            for difference in differences(one, two) if one and two else ():
                yield error(
                    where,
                    f"{difference} ({case.name(stream.source)}, {case.name(stream.target)})",
                    "ALTER one of them: rows must fit both",
                )
        found = [(shard, facts) for shard in case.involved if (facts := case.table(shard, table.name))]
        if found:
            yield from _table(case, where, table, found[0][1])
        for shard, asked in case.asked.items():
            if asked.strays.get(table.name):
                yield error(
                    where,
                    f"{case.name(shard)} has rows with keys that would come to it",
                    "look at them (shardctl check --data); move them to where they belong, or delete them",
                )
            elif asked.strays.get(table.name, False) is None:
                yield warning(
                    where,
                    f"whether {case.name(shard)} has rows with keys that would come was not found in time",
                    "give more time: --measure-time",
                )
            if table.name in asked.versioned:
                yield error(where, "it is system-versioned: its history cannot be moved", "drop the versioning")
    for shard, asked in case.asked.items():
        for key in asked.referring:
            yield error(
                case.keyspace.name,
                f"a foreign key of another database refers to it on {case.name(shard)}: {key}",
                "drop it: the row that it refers to would move away",
            )


def _lone_table(case: Case, where: str, table: Table) -> Iterator[Finding]:
    """What a table needs that gets a key, or another one."""
    if table.name not in case.config.keyspaces[case.keyspace.name].tables:
        yield error(
            where,
            "it is not in the file: it was registered by CREATE TABLE, and is known by that",
            "write it into the tables of every proxy's file, as it is now",
        )
    facts = case.table(case.sources[0], table.name)
    column = facts.schema.column(table.key or "") if facts else None
    if column is not None and column.nullable:
        yield error(
            where,
            f"column {column.name} may be NULL: a row without key has no shard",
            f"ALTER TABLE {table.name} MODIFY {column.name} {column.column_type} NOT NULL",
        )


def _table(case: Case, where: str, table: Table, facts: TableFacts) -> Iterator[Finding]:
    yield from _whole_table(where, table, facts)
    if facts.schema.is_view:
        return
    for finding in sharded_table(where, replace(table, lookups=()), case.keyspace.key_type, facts):
        if finding.severity is Severity.ERROR:
            yield finding
    key = (table.key or "").lower()
    for name, columns in zip(facts.schema.unique_names, facts.schema.unique_keys, strict=False):
        if key not in {column.lower() for column in columns if column}:
            yield warning(
                where,
                f"unique index {name} lacks the shard key {table.key}: a value that two shards have stops the move, "
                "and while it runs hidden rows count as duplicates (1062)",
                "make sure that its values are unique over all shards, or add the shard key to it",
            )


def _keyspace(case: Case) -> Iterator[Finding]:
    keyspace, change = case.keyspace, case.change
    for shard in entries_left(keyspace, change):
        yield error(
            keyspace.name,
            f"{case.name(shard)} has entries of lookup indexes, and gives no keys away with which they could go",
            f"--evacuate {case.name(shard)}: it stays for them",
        )
    for shard, asked in case.asked.items():
        for ident in asked.unfinished:
            yield error(
                keyspace.name,
                f"move {ident} has an unfinished stream into {case.name(shard)}",
                "end it first: shardctl rebalance status, then complete or cancel",
            )
        if asked.changing:
            yield error(
                keyspace.name,
                f"a schema change of {', '.join(asked.changing)} is unfinished",
                "shardctl ddl, then resume or revert it",
            )
    gone = set(keyspace.shards) - set(change.members)
    for shard in sorted(gone):
        name = case.name(shard)
        singles = [t.name for t in keyspace.tables.values() if t.kind is TableKind.SINGLE and t.shard == shard]
        if singles:
            yield error(
                keyspace.name,
                f"single tables are on {name}, and cannot be moved yet: {', '.join(singles)}",
                f"--evacuate {name}: its keys go, and it stays for them",
            )
    yield from _references(case)


def _references(case: Case) -> Iterator[Finding]:
    """A shard that joins gets all reference tables, with all rows."""
    keyspace = case.keyspace
    new = set(case.change.members) - set(keyspace.shards)
    example = keyspace.home
    for table in keyspace.tables.values():
        one = case.table(example, table.name)
        if table.kind is not TableKind.REFERENCE or one is None:
            continue
        where = f"{keyspace.name}.{table.name}"
        if new:
            yield from _whole_table(where, table, one)
        for shard in sorted(new):
            two = case.table(shard, table.name)
            if two is None:
                continue  # the move makes it there
            names = f"{case.name(example)}, {case.name(shard)}"
            for difference in differences(one, two):
                yield error(where, f"{difference} ({names})", "ALTER one of them: clients must see one table")
            rows = [case.contents.get(i, {}).get(table.name) for i in (example, shard)]
            if rows[1] is not None and (rows[1][0] == 0 or rows[0] == rows[1]):
                continue
            yield error(
                where,
                f"{case.name(shard)} has rows of the reference table that may be others than {case.name(example)}'s: "
                "the move would replace them",
                f"look at them; they may be from when {case.name(shard)} was in the keyspace before, and nothing "
                f"serves them now: then empty the table on {case.name(shard)}",
            )


def _whole_table(where: str, table: Table, facts: TableFacts) -> Iterator[Finding]:
    """What a table needs to be copied and followed, whatever its rows are placed by."""
    if facts.schema.is_view:
        yield error(where, "it is a view: rows move with their table", "take it out of the file's tables")
        return
    if not facts.schema.primary_key:
        yield error(where, "it has no primary key: rows cannot be told apart", "ALTER TABLE … ADD PRIMARY KEY (…)")
    if facts.engine and facts.engine.lower() != "innodb":
        yield error(
            where,
            f"its engine is {facts.engine}: it has no transactions and no snapshots",
            f"ALTER TABLE {table.name} ENGINE = InnoDB",
        )
    for key in facts.foreign_keys:
        yield error(
            where,
            f"foreign key {key}: a cascade changes rows without the binlog, and rows arrive in any order",
            "drop it for the move, on every shard",
        )
    for trigger in facts.triggers:
        yield error(
            where,
            f"trigger {trigger.split(':')[0]} would run again for each row that arrives",
            "drop it for the move, on every shard",
        )
