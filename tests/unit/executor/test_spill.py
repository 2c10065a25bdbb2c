"""Sorting beyond memory."""

from __future__ import annotations

import random

import pytest

from shardproxy.executor.spill import Sorter

NO_LIMIT = 1 << 64


@pytest.mark.parametrize("bound", [500, 5_000, 1 << 20])
@pytest.mark.parametrize("most", [NO_LIMIT, 1500, 10, 0])
def test_rows_come_sorted_whatever_fits_in_memory(bound: int, most: int) -> None:
    dice = random.Random(bound + most % 1000)
    rows = [b"%d" % dice.randint(0, 10**6) for _ in range(2000)]
    with Sorter(most, bound) as sorter:
        for start in range(0, len(rows), 7):
            batch = rows[start : start + 7]
            sorter.add([row.rjust(9) for row in batch], batch)
        if most == NO_LIMIT and bound < 10_000:
            assert sorter.runs > 1
        if most == 10 and bound >= 5_000:
            assert not sorter.runs
        found = [row for batch in sorter.sorted() for row in batch]
    wanted = sorted(rows, key=int)
    assert found[: min(most, len(rows))] == wanted[: min(most, len(rows))]
    assert len(found) >= min(most, len(rows))
