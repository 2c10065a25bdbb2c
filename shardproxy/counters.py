"""PURE. What one process counts, in plain Python, and the report it sends to the supervisor.

The hot path counts in attributes of its own and folds them in here about once a second; prometheus-client is needed
in the supervisor only. A report is cumulative since the process started, so a lost one costs nothing, and JSON-able:

    {"counters":   [["shardproxy_errors_total", ["1064"], 3], …],
     "gauges":     [["shardproxy_clients", ["1"], 12], …],
     "histograms": [["shardproxy_query_seconds", ["EqualUnique"], [0, 9, 1, …], 0.0123], …]}

Label values are in the order of `admin.metrics.FAMILIES`. A histogram entry holds how many observations fell into
each bucket of SECONDS_BOUNDS (not added up; one more for everything above the last bound) and their sum in seconds.
"""

from __future__ import annotations

from bisect import bisect_right

# Upper bounds of the latency buckets, in seconds; an observation equal to a bound is inside (Prometheus' `le`).
SECONDS_BOUNDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)

Labels = tuple[str, ...]


class Counters:
    """Counters, gauges and histograms of one process, by family name and label values."""

    __slots__ = ("_counters", "_gauges", "_histograms")

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], float] = {}
        self._gauges: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], _Histogram] = {}

    def add(self, name: str, labels: Labels = (), n: float = 1) -> None:
        """Count `n` more. Raises ValueError for a negative `n`: totals never go down."""
        if n < 0:
            raise ValueError(f"{name}: cannot count {n}")
        key = (name, labels)
        self._counters[key] = self._counters.get(key, 0) + n

    def set(self, name: str, labels: Labels = (), value: float = 0) -> None:
        """Set a gauge for the next report only: what is not set again is gone from the report after it."""
        self._gauges[name, labels] = value

    def observe(self, name: str, labels: Labels, seconds: list[float]) -> None:
        """Take a batch of durations in seconds. The list is sorted in place."""
        key = (name, labels)
        histogram = self._histograms.get(key)
        if histogram is None:
            histogram = self._histograms[key] = _Histogram()
        histogram.take(seconds)

    def snapshot(self) -> dict[str, list[list[object]]]:
        """The report as of now (form: see the module's docstring). Gauges are forgotten."""
        report: dict[str, list[list[object]]] = {
            "counters": [[name, list(labels), value] for (name, labels), value in self._counters.items()],
            "gauges": [[name, list(labels), value] for (name, labels), value in self._gauges.items()],
            "histograms": [
                [name, list(labels), list(h.counts), h.total] for (name, labels), h in self._histograms.items()
            ],
        }
        self._gauges.clear()
        return report


class _Histogram:
    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self.total = 0.0

    def take(self, seconds: list[float]) -> None:
        # One sort and one bisect a bucket, all in C: far cheaper than a bisect per observation.
        seconds.sort()
        below = 0
        for i, bound in enumerate(SECONDS_BOUNDS):
            upto = bisect_right(seconds, bound, below)
            self.counts[i] += upto - below
            below = upto
        self.counts[-1] += len(seconds) - below
        self.total += sum(seconds)


__all__ = ["SECONDS_BOUNDS", "Counters", "Labels"]
