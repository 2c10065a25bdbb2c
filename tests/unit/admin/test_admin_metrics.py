"""admin.metrics: reports, totals over living and dead processes, the Prometheus text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shardproxy.admin.metrics import FAMILIES, Exposition, Kind, Totals, WorkerReport
from shardproxy.counters import SECONDS_BOUNDS, Counters

QUERIES = "shardproxy_queries_total"


def _report(queries: float = 0, clients: float = 0, seconds: list[float] | None = None) -> WorkerReport:
    counters = Counters()
    counters.add(QUERIES, ("SELECT", "EqualUnique", "a", "replica"), queries)
    counters.set("shardproxy_clients", ("1",), clients)
    counters.observe("shardproxy_query_seconds", ("EqualUnique",), seconds or [])
    return WorkerReport.from_json(json.loads(json.dumps(counters.snapshot())))


def _samples(totals: Totals) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = Exposition(totals).text().decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_every_family_is_exposed_from_the_start() -> None:
    text = Exposition(Totals()).text().decode()
    for family in FAMILIES.values():
        kind = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}[family.kind]
        assert f"# TYPE {family.name} {kind}\n" in text
        assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert "\nshardproxy_connections_total 0.0\n" in text


def test_names_do_not_collide_in_any_format() -> None:
    # OpenMetrics names a counter family without its "_total".
    bare = [name.removesuffix("_total") for name in FAMILIES]
    assert len(bare) == len(set(bare))


def test_workers_add_up() -> None:
    totals = Totals()
    totals.accept("1", 100, _report(3, 1))
    totals.accept("2", 200, _report(4, 2))
    totals.accept("1", 100, _report(5, 1))
    labels = (("kind", "SELECT"), ("opcode", "EqualUnique"), ("role", "replica"), ("shard", "a"))
    samples = _samples(totals)
    assert samples[QUERIES, labels] == 9
    assert samples["shardproxy_clients", (("worker", "1"),)] == 3


def test_histogram_is_cumulative() -> None:
    totals = Totals()
    totals.accept("1", 1, _report(seconds=[0.0001, 0.0002]))
    totals.accept("2", 2, _report(seconds=[0.02, 60.0]))
    samples = _samples(totals)

    def bucket(le: str) -> float:
        return samples["shardproxy_query_seconds_bucket", (("le", le), ("opcode", "EqualUnique"))]

    assert [bucket(le) for le in ("0.0001", "0.00025", "0.01", "0.025", "10.0", "+Inf")] == [1, 2, 2, 3, 3, 4]
    assert samples["shardproxy_query_seconds_count", (("opcode", "EqualUnique"),)] == 4
    assert samples["shardproxy_query_seconds_sum", (("opcode", "EqualUnique"),)] == pytest.approx(60.0203)


def test_totals_never_go_down_when_workers_die() -> None:
    totals = Totals()
    totals.accept("1", 100, _report(10, 5, [0.1]))
    totals.accept("2", 200, _report(1, 1, [0.1]))
    totals.retire("1")
    totals.retire("1")
    assert totals.sum().total(QUERIES) == 11
    assert totals.sum().total("shardproxy_clients") == 1, "gauges end with their process"
    assert totals.report_of("1").counters == {}
    totals.accept("1", 101, _report(2, 1, [0.1]))
    assert totals.sum().total(QUERIES) == 13
    [(counts, _)] = totals.sum().histograms.values()
    assert sum(counts) == 3


def test_a_new_pid_retires_the_old_one() -> None:
    totals = Totals()
    totals.accept("1", 100, _report(10))
    totals.accept("1", 101, _report(2))
    totals.accept("1", 100, _report(12))  # was under way when its sender died
    assert totals.sum().total(QUERIES) == 12
    totals.accept("1", 101, _report(3))
    assert totals.sum().total(QUERIES) == 13


def test_by_label() -> None:
    counters = Counters()
    counters.add(QUERIES, ("SELECT", "In", "a", "replica"), 2)
    counters.add(QUERIES, ("UPDATE", "In", "a", "primary"), 3)
    counters.add(QUERIES, ("SELECT", "In", "b", "replica"), 4)
    report = WorkerReport.from_json(counters.snapshot())
    assert report.by_label(QUERIES, "shard") == {"a": 5, "b": 4}
    assert report.by_label(QUERIES, "kind") == {"SELECT": 6, "UPDATE": 3}


def test_json_round_trip() -> None:
    report = _report(3, 2, [0.1, 0.2])
    assert WorkerReport.from_json(json.loads(json.dumps(report.to_json()))) == report


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "is an object"),
        ({"counters": [["shardproxy_nope_total", [], 1]]}, "not declared"),
        ({"counters": [["shardproxy_clients", ["1"], 1]]}, "not declared as one of them"),
        ({"counters": [[QUERIES, ["SELECT"], 1]]}, "expected values of the labels"),
        ({"counters": [[QUERIES, ["a", "b", "c", "d"]]]}, "has not 3 items"),
        ({"counters": [["shardproxy_connections_total", [], -1]]}, "cannot be -1"),
        ({"counters": [["shardproxy_connections_total", [], "1"]]}, "not a number"),
        ({"gauges": [["shardproxy_clients", ["1"], float("nan")]]}, "not a number"),
        ({"histograms": [["shardproxy_query_seconds", ["In"], [1, 2], 0.1]]}, f"expected {len(SECONDS_BOUNDS) + 1}"),
    ],
)
def test_broken_reports_are_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorkerReport.from_json(data)
