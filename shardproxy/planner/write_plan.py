"""How a write over several shards is split, or done in steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WritePlan:
    """How a write over several shards is split, or done in steps."""
