"""What the commit of a transaction over two shards costs, beside two commits on one shard each."""

from __future__ import annotations

import time
from statistics import median

from bench.rig.measured import Figure
from bench.rig.proxy import PASSWORD, USER
from bench.rig.wire import WireClient, WireError
from shardproxy.local import LocalCluster
from shardproxy.topology.maps import BucketMap

NEEDED = 2.5
_WARM_UP = 20
_NAME = "two-shard commit"
_UNIT = "× two commits"


def two_shard_commit(cluster: LocalCluster, port: int, keyspace: str, places: BucketMap, rounds: int) -> list[Figure]:
    """Figures with logs as the servers have them, and with logs forced to the disk at each commit."""
    by_shard: dict[int, int] = {}
    for ident in range(1, 1001):
        by_shard.setdefault(places.lookup(ident), ident)
    first, second = (by_shard[shard] for shard in sorted(by_shard)[:2])
    figures = []
    for forced in (False, True):
        for shard in cluster.shards:
            shard.primary.rows(f"SET GLOBAL innodb_flush_log_at_trx_commit = {1 if forced else 2}")
            shard.primary.rows(f"SET GLOBAL sync_binlog = {int(forced)}")
        note = "logs forced to the disk" if forced else "logs not forced to the disk"
        figures += _figures(port, keyspace, (first, second), rounds, note)
    return figures


def _figures(port: int, keyspace: str, idents: tuple[int, int], rounds: int, note: str) -> list[Figure]:
    client = WireClient(port, USER, PASSWORD, keyspace)
    commits: tuple[list[float], list[float]] = ([], [])
    whole: tuple[list[float], list[float]] = ([], [])
    try:
        for number in range(rounds + _WARM_UP):
            alone = [_transaction(client, (ident,)) for ident in idents]
            together = _transaction(client, idents)
            if number >= _WARM_UP:
                for kept, index in ((commits, 0), (whole, 1)):
                    kept[0].append(sum(times[index] for times in alone))
                    kept[1].append(together[index])
    except WireError as error:
        return [Figure(_NAME, _UNIT, needed=NEEDED, shards=2).failed(error.code, f"{error} [{note}]")]
    finally:
        client.close()
    figures = []
    for name, kept, needed in ((_NAME, commits, NEEDED), ("two-shard transaction", whole, None)):
        singles, double = (median(times) for times in kept)
        detail = {"two_single_ms": singles * 1e3, "two_shard_ms": double * 1e3}
        unit = _UNIT if needed else "× two transactions"
        figures.append(Figure(name, unit, double / singles, needed, 2, note=note, detail=detail))
    return figures


def _transaction(client: WireClient, idents: tuple[int, ...]) -> tuple[float, float]:
    """Seconds of the COMMIT, and of the whole transaction."""
    start = time.perf_counter()
    client.run("BEGIN")
    for ident in idents:
        client.run(f"UPDATE accounts SET v = v + 1 WHERE id = {ident}")
    before = time.perf_counter()
    client.run("COMMIT")
    end = time.perf_counter()
    return end - before, end - start
