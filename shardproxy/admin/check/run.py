"""All of `shardctl check` in order."""

from __future__ import annotations

import asyncio

from shardproxy.admin.check.ask import ask_server
from shardproxy.admin.check.data import data_findings
from shardproxy.admin.check.files import file_findings
from shardproxy.admin.check.findings import Finding, in_order
from shardproxy.admin.check.keys import key_findings
from shardproxy.admin.check.lookups import lookup_findings, lookup_state_findings
from shardproxy.admin.check.redis import redis_findings
from shardproxy.admin.check.registered import registered_findings
from shardproxy.admin.check.replication import replication_findings
from shardproxy.admin.check.servers import server_findings
from shardproxy.admin.check.store import store_findings
from shardproxy.admin.check.tables import table_findings
from shardproxy.backend.control import Credentials
from shardproxy.config import Config
from shardproxy.topology.build import build_snapshot


async def check_all(config: Config, ask_servers: bool = True, with_data: bool = False) -> list[Finding]:
    """Every finding, errors first.

    ask_servers: False looks at this machine's files only. with_data: also read the rows of reference and sharded
    tables. Raises ConfigError when the backend's password cannot be found.
    """
    findings = list(file_findings(config))
    if not ask_servers:
        return in_order(findings)
    credentials = Credentials.of(config)
    seconds = config.backend.connect_timeout
    snapshot = build_snapshot(config)
    found, documents = await store_findings(config, snapshot)
    findings += found
    findings += await redis_findings(config)
    found, snapshot = await registered_findings(snapshot, documents, credentials, seconds)
    findings += found
    databases = list(snapshot.keyspaces)
    servers = [server for shard in snapshot.shards for server in shard.servers]
    facts = await asyncio.gather(*(ask_server(s, credentials, databases, seconds) for s in servers))
    findings += server_findings(config, snapshot, facts)
    findings += replication_findings(config, snapshot, facts)
    findings += table_findings(snapshot, facts)
    findings += key_findings(snapshot, facts)
    findings += lookup_findings(snapshot, facts)
    findings += await lookup_state_findings(snapshot, credentials, seconds)
    if with_data:
        findings += await data_findings(snapshot, facts, credentials, seconds=600.0)
    return in_order(findings)
