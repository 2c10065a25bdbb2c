"""bench.rig.figures: medians and ratios within a round."""

from __future__ import annotations

import json

import pytest

from bench.rig.figures import Sample, ratios, summary


def _sample(number: int, peer: str, cpu_us: float, qps: float = 100, clients: int = 16) -> Sample:
    return Sample(number, peer, "text", clients, qps, 1.0, 2.0, 3.0, cpu_us)


def test_summary_is_what_the_json_file_holds() -> None:
    samples = [
        _sample(1, "shardproxy", 20, 90),
        _sample(1, "direct", 0),
        _sample(2, "shardproxy", 30, 100),
        _sample(2, "direct", 0),
        _sample(3, "shardproxy", 22, 200),
        _sample(3, "direct", 0),
    ]
    shown = json.loads(json.dumps(summary(samples)))
    assert shown[0] == {
        "peer": "shardproxy",
        "mode": "text",
        "clients": 16,
        "qps": 100,
        "p50_ms": 1.0,
        "p95_ms": 2.0,
        "p99_ms": 3.0,
        "cpu_us_per_query": 22,
    }
    assert [f["peer"] for f in shown] == ["shardproxy", "direct"]
    assert shown[1]["cpu_us_per_query"] == 0


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was three times slower in round 2: the ratio of medians would be 0.5, that of each round is 1 or 0.5.
    samples = [
        *(_sample(1, "shardproxy", 20), _sample(1, "haproxy", 20)),
        *(_sample(2, "shardproxy", 60), _sample(2, "haproxy", 60)),
        *(_sample(3, "shardproxy", 20), _sample(3, "haproxy", 40)),
    ]
    [ratio] = ratios(samples)
    assert (ratio.peer, ratio.median, ratio.low, ratio.high) == ("haproxy", 1, 0.5, 1)
    assert ratio.met


@pytest.mark.parametrize(
    ("peer", "cpu_us", "met"), [("haproxy", 22, True), ("haproxy", 22.1, False), ("mysqlrouter", 13.1, False)]
)
def test_bounds(peer: str, cpu_us: float, met: bool) -> None:
    [ratio] = ratios([_sample(1, "shardproxy", cpu_us), _sample(1, peer, 20)])
    assert ratio.met is met


def test_no_ratio_without_its_two_sides() -> None:
    samples = [
        *(_sample(1, "shardproxy", 20), _sample(1, "direct", 0)),
        *(_sample(2, "haproxy", 20), _sample(3, "mysqlrouter", 20)),
        _sample(1, "haproxy", 20, clients=64),
    ]
    assert ratios(samples) == []
