"""`shardctl init`: a commented starter file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shardproxy.cli.terminal import DEFAULT_CONFIG, Exit, ends_with_status, note
from shardproxy.config.reference import starter


@ends_with_status
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a commented starter configuration.

    Examples:
      shardctl init                         write shardproxy.toml here
      shardctl init /etc/shardproxy.toml    write it there
    """
    try:
        # "x" fails on a file that appears meanwhile, too.
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(starter())
    except FileExistsError:
        note(f"{path} exists; nothing was written (--force overwrites it)")
        raise typer.Exit(Exit.FAILED) from None
    except OSError as error:
        note(f"{path} cannot be written: {error.strerror or error}")
        raise typer.Exit(Exit.FAILED) from None
    note(f"wrote {path}; edit servers, users and tables, then run: shardctl check --config {path}")
