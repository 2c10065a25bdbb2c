"""What every command shares: options, exit statuses, where words go.

Results go to stdout; notes and errors to stderr. Exit status 0: done, nothing wrong. 1: done, and something is wrong,
or it failed. 2: the command line or the configuration file cannot be used. 3: no proxy answers. 130: Ctrl-C.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from shardproxy.config import Config, load
from shardproxy.errors import ConfigError, ShardproxyError

P = ParamSpec("P")
T = TypeVar("T")

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="SHARDPROXY_CONFIG", help="The configuration file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DEFAULT_CONFIG = Path("shardproxy.toml")

_PLAIN_WIDTH = 160  # columns when stdout is no terminal: tables in files and pipes are not squeezed to 80


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    UNUSABLE = 2
    NO_PROXY = 3
    INTERRUPTED = 130


class NoProxy(ShardproxyError):
    """No proxy answers at the admin address."""


def stdout() -> Console:
    """Console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Console for notes and errors."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PLAIN_WIDTH
    return console


def note(message: str) -> None:
    """One line on stderr, taken as it is (no markup)."""
    stderr().print(message, markup=False, soft_wrap=True)


def print_json(data: Any) -> None:
    """A result as JSON on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the house style."""
    out = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        out.add_column(column, overflow="fold")
    return out


def read_config(path: Path) -> Config:
    """The configuration with this process's environment. Raises ConfigError."""
    return load(path, os.environ)


def ends_with_status(command: Callable[P, T]) -> Callable[P, T]:
    """Turn our errors and Ctrl-C inside a command into one clear line and its exit status."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return command(*args, **kwargs)
        except ConfigError as error:
            status, message = Exit.UNUSABLE, str(error)
        except NoProxy as error:
            status, message = Exit.NO_PROXY, str(error)
        except ShardproxyError as error:
            status, message = Exit.FAILED, str(error)
        except KeyboardInterrupt:
            status, message = Exit.INTERRUPTED, "interrupted"
        note(message)
        raise typer.Exit(status)

    return wrapped
