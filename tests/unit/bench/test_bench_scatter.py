"""The scatter bench: figures and what is said of them, and maps that are those of the proxy."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import scatter
from bench.rig import before, scatter_data
from bench.rig.measured import FAILED, MEASURED, REFUSED, Figure, median_ratio, notes, uncertainty, verdict
from bench.rig.planning import planning_ms, refused
from shardproxy.config import parse
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.maps import BucketMap
from shardproxy.topology.model import Snapshot
from shardproxy.topology.ring import place_buckets
from tests.unit.planner.world import context

_FIGURE = Figure("memory", "MiB", 12.5, needed=64.0, shards=4, detail={"rows": 10.0})


def _snapshot(keyspaces: str, shards: list[str]) -> Snapshot:
    data: dict[str, Any] = {
        "backend": {"user": "x", "password": "x"},
        "users": {"x": {"password": "x"}},
        "shards": {name: {"primary": f"127.0.0.1:{3000 + i}"} for i, name in enumerate(shards)},
        **tomllib.loads(keyspaces),
    }
    return build_snapshot(parse(data, base=Path("/")))


def test_a_figure_is_met_up_to_what_is_needed() -> None:
    assert _FIGURE.met is True
    assert replace(_FIGURE, value=64.0).met is True
    assert replace(_FIGURE, value=64.1).met is False
    assert replace(_FIGURE, needed=None).met is None


def test_what_was_not_measured_does_not_meet_a_need() -> None:
    failed = _FIGURE.failed(9101, "several shards")
    assert (failed.met, failed.value, failed.state) == (False, None, REFUSED)
    assert failed.note == "error 9101: several shards"


@pytest.mark.parametrize(
    ("code", "state"), [(9100, REFUSED), (9199, REFUSED), (9200, FAILED), (1064, FAILED), (0, FAILED)]
)
def test_only_errors_of_the_proxys_own_are_refusals(code: int, state: str) -> None:
    assert _FIGURE.failed(code, "x").state == state


def test_json_has_every_field_and_the_details() -> None:
    shown = json.loads(json.dumps(_FIGURE.as_json()))
    assert shown == {
        "figure": "memory",
        "shards": 4,
        "value": 12.5,
        "unit": "MiB",
        "needed": 64.0,
        "met": True,
        "state": MEASURED,
        "note": "",
        "rows": 10.0,
    }


def test_ratios_are_taken_within_pairs() -> None:
    # Each pair is 2 : 1, whatever the machine did meanwhile.
    assert median_ratio([(2, 1), (20, 10), (4, 2)]) == (2, 2, 2)
    assert median_ratio([(1, 1), (3, 1), (2, 1)]) == (2, 1, 3)


def test_uncertainty_grows_with_the_spread_and_shrinks_with_the_rounds() -> None:
    assert uncertainty([1.0]) == 0
    assert uncertainty([1.0, 1.0, 1.0]) == 0
    assert uncertainty([0.9, 0.95, 1.0, 1.05, 1.1]) == pytest.approx(0.1 / 5**0.5)
    assert uncertainty([0.9, 0.95, 1.0, 1.05, 1.1] * 4) < uncertainty([0.9, 0.95, 1.0, 1.05, 1.1])


def test_verdict_counts_met_missed_and_open() -> None:
    missed, unasked = replace(_FIGURE, value=100.0), replace(_FIGURE, needed=None)
    open_one = _FIGURE.failed(9101, "x")
    assert verdict([_FIGURE, unasked]) == "1 of 1 needed figures are met"
    assert verdict([_FIGURE, missed, open_one]) == ("1 of 3 needed figures are met, 1 NOT met, 1 could not be measured")


def test_notes_say_each_thing_once() -> None:
    refused_ones = [
        replace(_FIGURE, shards=n).failed(9101, f"LIMIT over several shards (it would touch shards {names})")
        for n, names in ((2, "a, b"), (3, "a, b, c"))
    ]
    assert notes([_FIGURE, *refused_ones]) == ["memory (2), memory (3): error 9101: LIMIT over several shards"]


@pytest.mark.parametrize("count", [2, 4, 8])
def test_rows_are_put_where_the_proxy_looks_for_them(count: int) -> None:
    names = [f"shard{i}" for i in range(1, 9)]
    snapshot = _snapshot(scatter_data.keyspace_toml(names[:count]), names)
    chosen = names[:count]
    loaded = BucketMap(place_buckets(dict.fromkeys(chosen, 1), {name: i for i, name in enumerate(chosen)}))
    assert snapshot.keyspaces[scatter_data.keyspace(count)].map == loaded
    assert loaded.all_shards == tuple(range(count))


def test_one_shard_traffic_stays_on_one_shard() -> None:
    snapshot = _snapshot(before._KEYSPACE, ["shard1", "shard2"])
    assert snapshot.keyspaces["sbtest"].map.shards_between(1, before._ROWS) == {0}


def test_every_ordered_statement_says_its_order() -> None:
    for statement in (*scatter_data.STATEMENTS, scatter_data.ALL_BY_NUMBER, scatter_data.ALL_BY_TEXT):
        one_row = statement.sql.startswith("SELECT COUNT(*) FROM")
        assert statement.ordered == (one_row or "ORDER BY" in statement.sql)
    assert len({s.name for s in scatter_data.STATEMENTS}) == 6


def test_planning_is_timed_for_each_statement() -> None:
    statements = ["SELECT * FROM users WHERE uid = 1", "SELECT 1 FROM nothing.known"]
    times = planning_ms(statements, context())
    assert len(times) == 2
    assert min(times) > 0
    assert refused(statements, context()) == 1


def test_parts_that_do_not_exist_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scatter._arguments(["--only", "speed,sped"])
    assert "'sped' is none of speed, rows, planning, commit, before, lookup" in capsys.readouterr().err
    assert scatter._arguments([]).only == list(scatter.PARTS)


def test_a_need_may_be_a_smallest_value() -> None:
    assert Figure("rate", "rows/s", 9.0, 8.0, at_least=True).met
    assert not Figure("rate", "rows/s", 7.0, 8.0, at_least=True).met
    assert not Figure("rate", "rows/s", None, 8.0, at_least=True).met
    assert not Figure("time", "ms", 9.0, 8.0).met
