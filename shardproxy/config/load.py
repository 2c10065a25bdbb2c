"""Reading the file: TOML → models → rules, and every problem in one error."""

from __future__ import annotations

import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from shardproxy.config.models import Config
from shardproxy.config.passwords import SOURCES
from shardproxy.config.rules import KeyPath, Problem, cross_check
from shardproxy.errors import ConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def load(
    path: str | Path, environ: Mapping[str, str], overrides: Mapping[str, Mapping[str, Any]] | None = None
) -> Config:
    """Read and check a configuration file.

    environ: where `password_env` names are looked up (later, when the password is asked for).
    overrides: dotted table → keys that replace the file's, such as {"listen.mysql": {"port": 3308}}.
    Raises ConfigError: the file cannot be read, is not TOML, or has problems; its message lists every problem, a line
    each: file, key path, what was found, what was expected.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{path}: cannot be read ({reason}); `shardctl init` writes a starter file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; TOML files are UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for table, keys in (overrides or {}).items():
        place = data
        for part in table.split("."):
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                break  # the model will say that this is no table
        else:
            place.update(keys)
    return parse(data, str(path), path.parent, environ)


def parse(
    data: Mapping[str, Any],
    source: str = "shardproxy.toml",
    base: Path = Path(),
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Check a configuration that is already a mapping. Arguments and errors as `load`; `base` is the file's folder."""
    config, problems = None, []
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems = [_problem(e, data) for e in error.errors(include_url=False, include_context=False)]
    problems += cross_check(data)
    if problems or config is None:
        raise ConfigError("\n".join(_lines(source, problems)))
    config.remember_origin(source, base, environ or {})
    return config


def _lines(source: str, problems: list[Problem]) -> Iterator[str]:
    for p in problems:
        line = f"{source}: {key_path(p.path)}: found {p.found}; expected {p.expected}"
        # A name may hold any character; a line stays one line.
        yield "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def key_path(path: KeyPath) -> str:
    """`("keyspaces", "main", "ranges", 1, "to")` as people write it: `keyspaces.main.ranges[1].to`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else json.dumps(part, ensure_ascii=not part.isprintable())
            text += f".{name}" if text else name
    return text or "(top level)"


def _problem(error: Any, data: Mapping[str, Any]) -> Problem:
    """One pydantic error in our words."""
    # "[key]" marks a bad name of a mapping's entry; the name itself stands before it.
    location: KeyPath = tuple(error["loc"])
    if location and location[-1] == "[key]":
        return Problem(location[:-1], f"the name {location[-2]!r}", _expected(error))
    if error["type"] == "extra_forbidden":
        return Problem(location, "an unknown key", _known_keys(location))
    if error["type"] == "missing":
        return Problem(location, "nothing", _description(location))
    return Problem(location, _shown(location, _value_at(data, location)), _expected(error))


def _value_at(data: Any, path: KeyPath) -> object:
    for part in path:
        data = data[part]
    return data


def _shown(path: KeyPath, value: object) -> str:
    """The found value, short, and never one that may be a secret."""
    if any(part in SOURCES for part in path):
        return f"a value of {len(value)} characters (not shown)" if isinstance(value, str) else _kind(value)
    if isinstance(value, Mapping | list):
        return _kind(value)
    if isinstance(value, bool):
        return str(value).lower()
    text = json.dumps(value, ensure_ascii=not value.isprintable()) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    names = {int: "an integer", float: "a float", str: "a string", list: "an array", dict: "a table"}
    if isinstance(value, list | dict) and not value:
        return "an empty " + names[type(value)].split()[1]
    return names.get(type(value), type(value).__name__)


def _expected(error: Any) -> str:
    """What pydantic says, without its opening words."""
    message = str(error["msg"])
    plain = {
        "string_type": "a string",
        "int_type": "an integer",
        "bool_type": "true or false",
        "dict_type": "a table",
        "model_type": "a table",
        "tuple_type": "an array",
        "list_type": "an array",
        "too_short": "at least one entry",
        "string_too_short": "a string that is not empty",
    }
    if error["type"] in plain:
        return plain[error["type"]]
    if error["type"] == "string_pattern_mismatch":
        return "a name of letters, digits and a few signs: " + message.removeprefix("String should match pattern ")
    for opening in ("Value error, ", "Input should be ", "String should "):
        message = message.removeprefix(opening)
    return message


def _model_at(path: KeyPath) -> type[BaseModel] | None:
    """The model of the table at `path`, None where there is none."""
    kind: Any = Config
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {f.alias or name: f for name, f in kind.model_fields.items()}
            if part not in fields:
                return None
            kind = _unwrapped(fields[str(part)].annotation)
        else:
            kind = _unwrapped(get_args(kind)[-1] if get_origin(kind) is dict else get_args(kind)[0])
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _unwrapped(kind: Any) -> Any:
    """`X | None` as X; everything else as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(a for a in get_args(kind) if a is not type(None))
    return kind


def _known_keys(path: KeyPath) -> str:
    model = _model_at(path[:-1])
    if model is None:
        return "no such key"
    known = [f.alias or name for name, f in model.model_fields.items()]
    close = get_close_matches(str(path[-1]), known, 1, 0.5)
    where = f"[{key_path(path[:-1])}]" if path[:-1] else "the top level"
    return (f'"{close[0]}"? ' if close else "") + f"Keys of {where} are: {', '.join(known)}"


def _description(path: KeyPath) -> str:
    model = _model_at(path[:-1])
    if model is None:
        return "a value"
    for name, field in model.model_fields.items():
        if (field.alias or name) == path[-1]:
            return (field.description or "a value").rstrip(".")
    return "a value"
