"""counters: adding, the report, and the buckets."""

from __future__ import annotations

import json
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.counters import SECONDS_BOUNDS, Counters


def test_counts_add_up_by_labels() -> None:
    counters = Counters()
    counters.add("c", ("a",))
    counters.add("c", ("a",), 4)
    counters.add("c", ("b",), 2)
    assert counters.snapshot()["counters"] == [["c", ["a"], 5], ["c", ["b"], 2]]
    counters.add("c", ("a",))
    assert counters.snapshot()["counters"][0] == ["c", ["a"], 6], "reports are cumulative"


def test_counting_down_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot count -1"):
        Counters().add("c", (), -1)


def test_gauges_are_for_one_report() -> None:
    counters = Counters()
    counters.set("g", ("x",), 3)
    counters.set("g", ("x",), 7)
    assert counters.snapshot()["gauges"] == [["g", ["x"], 7]]
    assert counters.snapshot()["gauges"] == []


def test_an_observation_on_a_bound_is_inside() -> None:
    counters = Counters()
    counters.observe("h", (), [0.001, 0.0010001, 11.0, 0.0])
    [[_, _, counts, total]] = counters.snapshot()["histograms"]
    assert isinstance(counts, list)
    at = SECONDS_BOUNDS.index(0.001)
    assert counts[0] == 1
    assert counts[at] == 1
    assert counts[at + 1] == 1
    assert counts[-1] == 1
    assert total == pytest.approx(11.0020001)


@given(st.lists(st.lists(st.floats(0, 20))))
def test_buckets_equal_one_bisect_per_value(batches: list[list[float]]) -> None:
    counters, expected = Counters(), [0] * (len(SECONDS_BOUNDS) + 1)
    for batch in batches:
        for value in batch:
            expected[bisect_left(SECONDS_BOUNDS, value)] += 1
        counters.observe("h", (), list(batch))
    report = counters.snapshot()["histograms"]
    assert report == [["h", [], expected, pytest.approx(sum(map(sum, batches)))]] or (not batches and not report)


def test_a_report_survives_json() -> None:
    counters = Counters()
    counters.add("c", ("a",), 1)
    counters.set("g", (), 2.5)
    counters.observe("h", ("b",), [0.1])
    report = counters.snapshot()
    assert json.loads(json.dumps(report)) == report


def test_a_report_is_a_copy() -> None:
    counters = Counters()
    counters.observe("h", (), [0.1])
    report = counters.snapshot()
    before = json.dumps(report)
    counters.observe("h", (), [0.1])
    assert json.dumps(report) == before
