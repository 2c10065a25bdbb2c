"""Prometheus metrics over all workers, kept in the supervisor.

Workers send cumulative reports (see `shardproxy.counters`); `Totals` adds them. What a dead worker counted stays in the
sums, so totals never go down; its gauges end with it. FAMILIES is the one declaration of every name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shardproxy.counters import SECONDS_BOUNDS, Labels


class Kind(Enum):
    COUNTER = "counters"  # the values are the keys of a report
    GAUGE = "gauges"
    HISTOGRAM = "histograms"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it is for people, and the names of its labels in the order of a report's values.

    Values of equal labels add up over the workers; what must not add up has a label that tells them apart, or is
    reported by the supervisor alone.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


def _families(*families: Family) -> dict[str, Family]:
    return {f.name: f for f in families}


FAMILIES: Mapping[str, Family] = _families(
    # ── traffic, counted by workers ──
    Family(
        "shardproxy_queries_total",
        Kind.COUNTER,
        "Statements sent to servers, by kind (SELECT, INSERT, ...), opcode of their plan, shard and role of the "
        "server; a statement over several shards counts once for each.",
        ("kind", "opcode", "shard", "role"),
    ),
    Family(
        "shardproxy_query_seconds",
        Kind.HISTOGRAM,
        "Time from a statement's last byte to its answer's last byte in seconds, by opcode.",
        ("opcode",),
    ),
    Family("shardproxy_errors_total", Kind.COUNTER, "Error packets sent to clients, by MySQL number.", ("code",)),
    Family("shardproxy_clients", Kind.GAUGE, "Client connections open now.", ("worker",)),
    Family("shardproxy_connections_total", Kind.COUNTER, "Client connections accepted.", ()),
    Family("shardproxy_transactions_open", Kind.GAUGE, "Transactions open now.", ()),
    Family("shardproxy_xa_commits_total", Kind.COUNTER, "Commits on several shards that wrote a decision row.", ()),
    Family("shardproxy_deadlocks_total", Kind.COUNTER, "Transactions rolled back for a deadlock over shards.", ()),
    Family(
        "shardproxy_deadlock_looks_total",
        Kind.COUNTER,
        "Looks at a shard's lock waits, by result: done, or failed (a right or performance_schema is missing).",
        ("result",),
    ),
    Family("shardproxy_scratch_queries_total", Kind.COUNTER, "Statements run over scratch tables.", ()),
    Family("shardproxy_scratch_rows_total", Kind.COUNTER, "Rows gathered into scratch tables.", ()),
    Family("shardproxy_scratch_bytes_total", Kind.COUNTER, "Bytes of rows gathered into scratch tables.", ()),
    Family("shardproxy_xa_recovered_total", Kind.COUNTER, "Prepared branches that recovery ended.", ("outcome",)),
    Family("shardproxy_xa_in_doubt", Kind.GAUGE, "Prepared branches listed by the primaries at the last look.", ()),
    Family("shardproxy_writes_held_total", Kind.COUNTER, "Writes that waited because their keys move.", ()),
    Family("shardproxy_writes_held_now", Kind.GAUGE, "Writes that wait now because their keys move.", ()),
    Family("shardproxy_held_seconds", Kind.HISTOGRAM, "How long such writes waited, in seconds.", ()),
    Family("shardproxy_held_longest_seconds", Kind.GAUGE, "The longest such wait of each worker so far.", ("worker",)),
    Family(
        "shardproxy_moving_rollbacks_total",
        Kind.COUNTER,
        "Transactions rolled back with error 1213 because keys that they may have touched move.",
        (),
    ),
    Family("shardproxy_pins_total", Kind.COUNTER, "Sessions that were pinned to a server connection.", ("reason",)),
    Family("shardproxy_pinned_sessions", Kind.GAUGE, "Sessions pinned now, by reason.", ("reason",)),
    Family("shardproxy_plan_cache_total", Kind.COUNTER, "Look-ups in the plan cache.", ("result",)),
    Family("shardproxy_plan_cache_entries", Kind.GAUGE, "Plans held by all workers.", ()),
    # ── pools, counted by workers ──
    Family(
        "shardproxy_pool_connections",
        Kind.GAUGE,
        "Connections to a server by state: idle, busy (lent to one session) or shared (point reads of many).",
        ("server", "state"),
    ),
    Family("shardproxy_pool_waits_total", Kind.COUNTER, "Checkouts that had to wait for a connection.", ("server",)),
    Family("shardproxy_pool_timeouts_total", Kind.COUNTER, "Checkouts that gave up waiting (9111).", ("server",)),
    # ── the supervisor's own ──
    Family("shardproxy_server_up", Kind.GAUGE, "1 when the last health check succeeded.", ("server", "role")),
    Family("shardproxy_replica_lag_seconds", Kind.GAUGE, "How far a replica is behind its primary.", ("server",)),
    Family("shardproxy_worker_restarts_total", Kind.COUNTER, "Workers that died and were replaced.", ()),
    Family("shardproxy_store_up", Kind.GAUGE, "1 when the map store has answered last.", ()),
    Family("shardproxy_load_samples_total", Kind.COUNTER, "Statements sampled for `shardctl rebalance --by-load`.", ()),
    Family("shardproxy_redis_clients", Kind.GAUGE, "Redis clients connected now.", ("worker",)),
    Family("shardproxy_redis_connections_total", Kind.COUNTER, "Redis clients accepted.", ()),
    Family("shardproxy_redis_commands_total", Kind.COUNTER, "Redis commands done.", ()),
    Family(
        "shardproxy_redis_slow_clients_closed_total",
        Kind.COUNTER,
        "Redis clients closed because they did not take their replies.",
        (),
    ),
    Family("shardproxy_redis_node_up", Kind.GAUGE, "1 when a worker's last connection was made.", ("node", "worker")),
    Family(
        "shardproxy_redis_replica_lag_seconds",
        Kind.GAUGE,
        "Age up to which a Redis replica is complete.",
        ("node", "worker"),
    ),
    Family("shardproxy_redis_replica_reads_total", Kind.COUNTER, "Commands that a Redis replica got.", ("node",)),
    Family(
        "shardproxy_redis_commands_held_total", Kind.COUNTER, "Redis commands that waited for keys being moved.", ()
    ),
    Family("shardproxy_redis_keys_pulled_total", Kind.COUNTER, "Redis keys moved because a client wanted them.", ()),
    Family("shardproxy_redis_node_failures_total", Kind.COUNTER, "Connections lost, or not made.", ("node",)),
    Family(
        "shardproxy_redis_node_ejected", Kind.GAUGE, "1 while a worker waits for a node no more.", ("node", "worker")
    ),
    Family("shardproxy_redis_node_ejections_total", Kind.COUNTER, "How often a worker has given a node up.", ("node",)),
    Family(
        "shardproxy_redis_own_connections",
        Kind.GAUGE,
        "Connections that one client has for itself: it blocks, watches, subscribes or monitors.",
        ("node", "worker"),
    ),
    Family(
        "shardproxy_redis_own_connections_refused_total",
        Kind.COUNTER,
        "Clients that got no connection of their own: redis.own_connections.",
        ("node",),
    ),
    Family(
        "shardproxy_cache_reads_total",
        Kind.COUNTER,
        "Reads of cached rows by outcome: hit; miss (loaded and kept); coalesced (somebody else's load); held off "
        "(written a moment ago) and waited in vain (read from MySQL, not kept); bypassed (the cache cannot be asked or "
        "believed); fill refused and fill failed: loads that were not kept; refreshed: loads while the row was given.",
        ("outcome",),
    ),
    Family(
        "shardproxy_cache_queries_total",
        Kind.COUNTER,
        "Queries whose answers may be kept, by outcome: as for rows, and too big: more than cache.queries.biggest.",
        ("outcome",),
    ),
    Family(
        "shardproxy_cache_voided_total",
        Kind.COUNTER,
        "Strict mode: rows and tables that writes made void before they ran; again: before an answer that came late; "
        "failed: writes that could not.",
        ("what",),
    ),
    Family(
        "shardproxy_cache_samples_total",
        Kind.COUNTER,
        "Hits that were compared with the row, by outcome: same; differs; beyond bound (cache.bound was broken); "
        "unknown (the servers did not say); skipped (too many at once).",
        ("rows", "outcome"),
    ),
    Family(
        "shardproxy_cache_staleness_seconds",
        Kind.HISTOGRAM,
        "For how long compared hits were given after they were found not to be true any more, in seconds; 0: the same.",
        ("rows",),
    ),
    Family("shardproxy_cache_invalidations_total", Kind.COUNTER, "Entries made void by a shard's binlog.", ("shard",)),
    Family("shardproxy_cache_fresh", Kind.GAUGE, "1 while cached rows of a shard are believed.", ("shard",)),
    Family("shardproxy_map_epoch", Kind.GAUGE, "Epoch of the newest map.", ()),
)


@dataclass(slots=True)
class WorkerReport:
    """A report as the supervisor holds it; the wire form is that of `Counters.snapshot`.

    counters, gauges: (family, label values) → value. histograms: → (observations in each bucket, sum of seconds).
    """

    counters: dict[tuple[str, Labels], float] = field(default_factory=dict)
    gauges: dict[tuple[str, Labels], float] = field(default_factory=dict)
    histograms: dict[tuple[str, Labels], tuple[list[int], float]] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any) -> WorkerReport:
        """Check and take a decoded report. Raises ValueError naming the first entry that is wrong."""
        if not isinstance(data, dict):
            raise ValueError(f"a report is an object, not {type(data).__name__}")
        report = cls()
        for key, value in _entries(data, Kind.COUNTER, 1):
            if _number(key, value[0]) < 0:
                raise ValueError(f"{key[0]}: a counter cannot be {value[0]}")
            report.counters[key] = value[0]
        for key, value in _entries(data, Kind.GAUGE, 1):
            report.gauges[key] = _number(key, value[0])
        for key, (counts, total) in _entries(data, Kind.HISTOGRAM, 2):
            if not isinstance(counts, list) or len(counts) != len(SECONDS_BOUNDS) + 1:
                raise ValueError(f"{key[0]}: expected {len(SECONDS_BOUNDS) + 1} buckets")
            report.histograms[key] = ([int(_number(key, c)) for c in counts], _number(key, total))
        return report

    def to_json(self) -> dict[str, list[list[object]]]:
        """The wire form."""
        return {
            "counters": [[name, list(labels), v] for (name, labels), v in self.counters.items()],
            "gauges": [[name, list(labels), v] for (name, labels), v in self.gauges.items()],
            "histograms": [
                [name, list(labels), list(counts), total] for (name, labels), (counts, total) in self.histograms.items()
            ],
        }

    def total(self, name: str) -> float:
        """Sum of a counter or gauge over all its labels."""
        values = self.counters if FAMILIES[name].kind is Kind.COUNTER else self.gauges
        return sum(value for (family, _), value in values.items() if family == name)

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """A counter or gauge by the values of one label, added up over the others."""
        family = FAMILIES[name]
        at = family.labels.index(label)
        values = self.counters if family.kind is Kind.COUNTER else self.gauges
        out: dict[str, float] = {}
        for (found, labels), value in values.items():
            if found == name:
                out[labels[at]] = out.get(labels[at], 0) + value
        return out

    def add(self, other: WorkerReport, gauges: bool = True) -> None:
        """Add another report to this one, its gauges only if asked."""
        for key, value in other.counters.items():
            self.counters[key] = self.counters.get(key, 0) + value
        if gauges:
            for key, value in other.gauges.items():
                self.gauges[key] = self.gauges.get(key, 0) + value
        for key, (counts, total) in other.histograms.items():
            mine, sofar = self.histograms.get(key, ([0] * len(counts), 0.0))
            self.histograms[key] = ([a + b for a, b in zip(mine, counts, strict=True)], sofar + total)


def _entries(data: dict[str, Any], kind: Kind, values: int) -> Iterator[tuple[tuple[str, Labels], list[Any]]]:
    for entry in data.get(kind.value, []):
        if not isinstance(entry, list) or len(entry) != 2 + values:
            raise ValueError(f"{kind.value}: entry {entry!r} has not {2 + values} items")
        name, labels = entry[0], entry[1]
        family = FAMILIES.get(name)
        if family is None or family.kind is not kind:
            raise ValueError(f"{kind.value}: {name!r} is not declared as one of them")
        if not isinstance(labels, list) or len(labels) != len(family.labels):
            raise ValueError(f"{name}: expected values of the labels {family.labels}, found {labels!r}")
        yield (name, tuple(map(str, labels))), entry[2:]


def _number(key: tuple[str, Labels], value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise ValueError(f"{key[0]}: {value!r} is not a number")
    return value


class Totals:
    """The reports of all processes: the newest of each living one, and what the dead ones had counted.

    A process is known by its slot ("1", "2", … for workers, "supervisor") and its pid. A report from a new pid in a
    slot retires the old one by itself; a late report of a retired pid is ignored.
    """

    def __init__(self) -> None:
        self._living: dict[str, tuple[int, WorkerReport]] = {}
        self._dead = WorkerReport()
        self._retired: dict[str, int] = {}  # slot → pid of its last dead process

    def accept(self, slot: str, pid: int, report: WorkerReport) -> None:
        """Take the newest report of a process."""
        if self._retired.get(slot) == pid:
            return
        known = self._living.get(slot)
        if known is not None and known[0] != pid:
            self.retire(slot)
        self._living[slot] = (pid, report)

    def retire(self, slot: str) -> None:
        """The slot's process is dead: keep its counts, drop its gauges. Nothing happens when it never reported."""
        known = self._living.pop(slot, None)
        if known is not None:
            self._dead.add(known[1], gauges=False)
            self._retired[slot] = known[0]

    def report_of(self, slot: str) -> WorkerReport:
        """The newest report of a living process; an empty one if there is none."""
        known = self._living.get(slot)
        return known[1] if known else WorkerReport()

    def sum(self) -> WorkerReport:
        """Everything added up."""
        total = WorkerReport()
        total.add(self._dead)
        for _, report in self._living.values():
            total.add(report)
        return total


class TotalsCollector(Collector):
    """Shows `Totals` to prometheus-client. Every family is there from the start, those without labels with 0."""

    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        total = self._totals.sum()
        for family in FAMILIES.values():
            if family.kind is Kind.HISTOGRAM:
                yield _histogram(family, total)
                continue
            metric: CounterMetricFamily | GaugeMetricFamily
            if family.kind is Kind.COUNTER:
                metric, values = CounterMetricFamily(family.name, family.help, labels=family.labels), total.counters
            else:
                metric, values = GaugeMetricFamily(family.name, family.help, labels=family.labels), total.gauges
            for (name, labels), value in sorted(values.items()):
                if name == family.name:
                    metric.add_metric(labels, value)
            if not family.labels and not metric.samples:
                metric.add_metric((), 0)
            yield metric

    def describe(self) -> Iterable[Metric]:
        # Without it, registering would collect.
        return ()


def _histogram(family: Family, total: WorkerReport) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for (name, labels), (counts, seconds) in sorted(total.histograms.items()):
        if name != family.name:
            continue
        buckets, below = [], 0
        for bound, count in zip(map(str, SECONDS_BOUNDS), counts, strict=False):
            below += count
            buckets.append((bound, float(below)))
        buckets.append(("+Inf", float(below + counts[-1])))
        metric.add_metric(labels, buckets, seconds)
    return metric


class Exposition:
    """`Totals` in Prometheus' text format."""

    def __init__(self, totals: Totals) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(TotalsCollector(totals))

    def text(self) -> bytes:
        """What `GET /metrics` answers."""
        return generate_latest(self._registry)


__all__ = ["FAMILIES", "Exposition", "Family", "Kind", "Totals", "TotalsCollector", "WorkerReport"]
