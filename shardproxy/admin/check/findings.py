"""One thing that is wrong, and how to put it right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """ERROR: clients would get errors or wrong answers, or could not be served. WARNING: it will hurt some day."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """where: a server ("a/primary"), a table ("main.users"), or a place in the file; what; what to do about it."""

    severity: Severity
    where: str
    what: str
    fix: str


def error(where: str, what: str, fix: str) -> Finding:
    """A finding of severity ERROR."""
    return Finding(Severity.ERROR, where, what, fix)


def warning(where: str, what: str, fix: str) -> Finding:
    """A finding of severity WARNING."""
    return Finding(Severity.WARNING, where, what, fix)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, otherwise as found; the same finding only once."""
    return sorted(dict.fromkeys(findings), key=lambda f: f.severity is Severity.WARNING)
