"""What is gathered into scratch tables, and what runs there (rung 3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScratchPlan:
    """What is gathered into scratch tables, and what runs there (rung 3)."""
