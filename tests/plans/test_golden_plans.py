"""The golden plans: statements and, indented below them, their plans, as a person can review them.

A file is read line by line: `#` comments, `@schema NAME|none`, `@modes SQL_MODE|none`, `@server mysql|mariadb` and
`@move PHASE|none` (rows are on their way) hold for what follows, any other line without indent is a statement.
`UPDATE_PLANS=1 pytest tests/plans` writes the plans anew; the diff is then what to review. The world that they are
planned in is tests/unit/planner/world.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardproxy.planner.context import PlanContext
from shardproxy.planner.render import render_plan
from shardproxy.planner.statement import plan_statement
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.moves import Phase
from tests.unit.planner.moving_world import moving_context
from tests.unit.planner.world import NAMES, context

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def read_golden(text: str) -> Iterator[tuple[str, PlanContext | None]]:
    """The lines of a file without its plans; statements with the world that they are planned in."""
    world = context()
    for line in text.splitlines():
        if line.startswith("    "):
            continue
        if line.startswith("@"):
            name, _, value = line[1:].partition(" ")
            match name:
                case "schema":
                    world = replace(world, schema=None if value == "none" else value)
                case "modes":
                    world = replace(world, modes=SqlModes.parse("" if value == "none" else value))
                case "server":
                    world = replace(world, mariadb=value == "mariadb")
                case "move":
                    still = value == "none"
                    world = replace(
                        world, snapshot=(context() if still else moving_context(phase=Phase(value))).snapshot
                    )
                case _:
                    raise ValueError(f"unknown directive {line}")
        yield line, world if line and not line.startswith(("@", "#")) else None


def planned(text: str) -> str:
    """The file with every plan made anew."""
    lines: list[str] = []
    for line, world in read_golden(text):
        lines.append(line)
        if world is not None:
            plan = plan_statement(line.encode(), world)
            lines += [f"    {shown}" for shown in render_plan(plan, NAMES).splitlines()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_plans_are_as_reviewed(file: Path) -> None:
    text = file.read_text()
    found = planned(text)
    if os.environ.get("UPDATE_PLANS"):
        file.write_text(found)
    assert found == text or os.environ.get("UPDATE_PLANS")


def test_golden_files_hold_every_statement_kind() -> None:
    from shardproxy.planner.plan import StatementKind

    text = "\n".join(file.read_text() for file in FILES)
    missing = [kind.value for kind in StatementKind if f"    {kind.value}: " not in text]
    assert not missing
