"""Figures of `./dev bench cache-writes`."""

from __future__ import annotations

from bench.cache_writes import Run, ratio, summary

RUNS = [
    Run(1, "bounded", 200.0, 1.0, 4.0, 15.0, 10.0),
    Run(1, "strict", 100.0, 2.0, 9.0, 30.0, 20.0),
    Run(2, "strict", 110.0, 3.0, 8.0, 40.0, 20.0),
    Run(2, "bounded", 100.0, 1.5, 5.0, 10.0, 10.0),
    Run(3, "bounded", 300.0, 0.5, 6.0, 20.0, 10.0),
    Run(3, "strict", 90.0, 4.0, 7.0, 20.0, 15.0),
]


def test_medians_by_way() -> None:
    assert summary(RUNS) == [
        Run(0, "bounded", 200.0, 1.0, 5.0, 15.0, 10.0),
        Run(0, "strict", 100.0, 3.0, 8.0, 30.0, 20.0),
    ]


def test_ratios_are_taken_within_a_round() -> None:
    assert ratio(RUNS, "qps") == 0.5
    assert ratio(RUNS, "p50_ms") == 2.0
    assert ratio(RUNS, "servers_us") == 2.0
