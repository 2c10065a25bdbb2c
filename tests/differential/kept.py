"""Episodes that failed once, as files of tests/differential/kept: they are run again every time."""

from __future__ import annotations

import json
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from shardproxy.protocol.mysql.values import DateTime, Time, Value
from tests.differential.episodes import Episode, Parameter, Step

FOLDER = Path(__file__).parent / "kept"


def files() -> list[Path]:
    """All kept episodes."""
    return sorted(FOLDER.glob("*.json"))


def read(path: Path) -> Episode:
    """The episode of a file."""
    content = json.loads(path.read_text())
    steps = tuple(
        Step(
            label=step["label"],
            sql=step["sql"],
            parameters=tuple((kind, unsigned, _value(value)) for kind, unsigned, value in step.get("parameters", ())),
            prepared=step.get("prepared", False),
            charset=step.get("charset", "utf-8"),
            compare=step.get("compare", "rows"),
            again=step.get("again", False),
            long_data=step.get("long_data", False),
            loose=tuple(step.get("loose", ())),
        )
        for step in content["steps"]
    )
    return Episode(content["database"], steps, content.get("found_rows", False), content.get("old_eof", False))


def write(episode: Episode, why: str) -> Path:
    """Keep an episode; `why` tells people what was wrong."""
    content: dict[str, Any] = {"why": why, "database": episode.database}
    for flag in ("found_rows", "old_eof"):
        if getattr(episode, flag):
            content[flag] = True
    content["steps"] = [_written(step) for step in episode.steps]
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    name = sha256(json.dumps(content["steps"]).encode()).hexdigest()[:12]
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(text)
    return path


def _written(step: Step) -> dict[str, Any]:
    content: dict[str, Any] = {"label": step.label, "sql": step.sql}
    if step.prepared:
        content["prepared"] = True
        content["parameters"] = [[kind, unsigned, _plain(value)] for kind, unsigned, value in step.parameters]
    if step.charset != "utf-8":
        content["charset"] = step.charset
    if step.compare != "rows":
        content["compare"] = step.compare
    if step.loose:
        content["loose"] = list(step.loose)
    for flag in ("again", "long_data"):
        if getattr(step, flag):
            content[flag] = True
    return content


def _plain(value: Value) -> Any:
    match value:
        case bytes():
            return {"bytes": value.hex()}
        case Decimal():
            return {"decimal": str(value)}
        case DateTime():
            return {"datetime": list(value)}
        case Time():
            return {"time": list(value)}
    return value


def _value(plain: Any) -> Value:
    match plain:
        case {"bytes": text}:
            return bytes.fromhex(text)
        case {"decimal": text}:
            return Decimal(text)
        case {"datetime": fields}:
            return DateTime(*fields)
        case {"time": fields}:
            return Time(*fields)
    found: Value = plain
    return found


__all__ = ["FOLDER", "Parameter", "files", "read", "write"]
