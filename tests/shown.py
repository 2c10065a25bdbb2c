"""What a test shows though it passes, such as counts of what was compared: printed when the test ends.

In a run by several processes only one of them prints; what the others show comes to it with their tests' reports.
"""

from __future__ import annotations

import pytest

_KEY = "shown"
_under_way: list[pytest.Item] = []


def begin(item: pytest.Item) -> None:
    """To be called when a test begins."""
    _under_way[:] = [item]


def show(*lines: str) -> None:
    """Print lines at the end of the test that is under way, also from the end of a fixture of its module."""
    [item] = _under_way
    item.user_properties.append((_KEY, "\n".join(lines)))


def shown(report: pytest.TestReport) -> list[str]:
    """What is due with a report."""
    if report.when != "teardown":
        return []
    return [str(text) for key, text in report.user_properties if key == _KEY]
