"""Figures of `./dev bench cache`."""

from __future__ import annotations

from bench.cache import Run, ratio, summary

RUNS = [
    Run(1, "mysql", 100.0, 20.0, 30.0, 0.0),
    Run(1, "cached", 200.0, 15.0, 10.0, 1.0),
    Run(2, "mysql", 110.0, 40.0, 60.0, 0.0),
    Run(2, "cached", 210.0, 30.0, 30.0, 0.5),
    Run(3, "mysql", 120.0, 10.0, 10.0, 0.0),
    Run(3, "cached", 220.0, 30.0, 10.0, 0.75),
]


def test_ratios_are_taken_within_a_round() -> None:
    assert ratio(RUNS) == 0.6  # of 0.5, 0.6 and 2


def test_the_summary_has_medians_by_way() -> None:
    assert summary(RUNS, 32) == [
        {"way": "mysql", "clients": 32, "qps": 110.0, "proxy_us": 20.0, "servers_us": 30.0, "hits": 0.0},
        {"way": "cached", "clients": 32, "qps": 210.0, "proxy_us": 30.0, "servers_us": 10.0, "hits": 0.75},
    ]
