"""`shardctl check`: the file, then the servers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from shardproxy.admin.check import Finding, Severity, check_all
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    print_json,
    read_config,
    stdout,
)
from shardproxy.errors import ConfigError


@ends_with_status
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    file_only: Annotated[bool, typer.Option("--file-only", help="Do not ask the servers.")] = False,
    data: Annotated[
        bool, typer.Option("--data", help="Also read all rows: reference tables equal, sharded rows on their shard.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Validate the configuration file, then ask every server that it names.

    Each finding says where, what, and how to put it right. Nothing is changed anywhere.

    Exit status: 0 nothing wrong, or only warnings; 1 errors; 2 the file itself cannot be used.

    Examples:
      shardctl check
      shardctl check --file-only --config new.toml
      shardctl check --json | jq -r '.findings[].what'
    """
    try:
        settings = read_config(config)
        findings = asyncio.run(check_all(settings, ask_servers=not file_only, with_data=data))
    except ConfigError as problem:
        if not as_json:
            raise
        print_json({"file": str(config), "usable": False, "problems": str(problem).splitlines(), "findings": []})
        raise typer.Exit(Exit.UNUSABLE) from None
    errors = sum(f.severity is Severity.ERROR for f in findings)
    if as_json:
        print_json(
            {
                "file": str(config),
                "usable": True,
                "problems": [],
                "errors": errors,
                "warnings": len(findings) - errors,
                "findings": [
                    {"severity": f.severity.value, "where": f.where, "what": f.what, "fix": f.fix} for f in findings
                ],
            }
        )
    else:
        _show(findings, errors, len(settings.shards), file_only)
    if errors:
        raise typer.Exit(Exit.FAILED)


def _show(findings: Sequence[Finding], errors: int, shards: int, file_only: bool) -> None:
    out = stdout()
    for finding in findings:
        style = "bold red" if finding.severity is Severity.ERROR else "bold yellow"
        out.print(Text.assemble((finding.severity.value, style), " ", (finding.where, "bold"), f": {finding.what}"))
        out.print(Text(f"  fix: {finding.fix}", "dim"))
    asked = "the file" if file_only else f"the file and the servers of {shards} shards"
    warnings = len(findings) - errors
    out.print(f"checked {asked}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")


def _count(n: int, what: str) -> str:
    return f"{n or 'no'} {what}{'' if n == 1 else 's'}"
