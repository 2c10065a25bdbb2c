"""bench.rig.sysbench: reading reports."""

from __future__ import annotations

import pytest

from bench.rig.sysbench import SysbenchResult, parse_report
from shardproxy.local import LocalError

REPORT = """sysbench 1.0.20 (using system LuaJIT 2.1.0-beta3)

Running the test with following options:
Number of threads: 16
Initializing random number generator from current time


Initializing worker threads...

Threads started!

Latency histogram (values are in milliseconds)
       value  ------------- distribution ------------- count
       0.057 |                                         2
       0.415 |**************************************** 88
       1.996 |***                                      8
      65.645 |                                         2

SQL statistics:
    queries performed:
        read:                            100
        write:                           0
        other:                           0
        total:                           100
    transactions:                        100    (20199.72 per sec.)
    queries:                             100    (20199.72 per sec.)
    ignored errors:                      0      (0.00 per sec.)
    reconnects:                          0      (0.00 per sec.)

General statistics:
    total time:                          2.5000s
    total number of events:              100

Latency (ms):
         min:                                    0.06
         95th percentile:                        1.47
"""


def test_report() -> None:
    result = parse_report(REPORT)
    assert result == SysbenchResult(100, 2.5, ((0.057, 2), (0.415, 88), (1.996, 8), (65.645, 2)))
    assert result.qps == 40
    assert [result.percentile(p) for p in (1, 50, 90, 91, 98, 99, 100)] == [
        0.057,
        0.415,
        0.415,
        1.996,
        1.996,
        65.645,
        65.645,
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ignored errors:                      0", "ignored errors:                      3", "met 3 errors"),
        ("reconnects:                          0", "reconnects:                          1", "1 lost connections"),
        ("total time:", "time in all:", "not as expected"),
        ("|", "!", "not as expected"),
    ],
)
def test_reports_that_must_not_count(old: str, new: str, words: str) -> None:
    with pytest.raises(LocalError, match=words):
        parse_report(REPORT.replace(old, new))


def test_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="empty histogram"):
        SysbenchResult(1, 1, ()).percentile(50)
