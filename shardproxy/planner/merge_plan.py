"""How the rows of several shards become one answer (rung 2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MergePlan:
    """How the rows of several shards become one answer (rung 2)."""
