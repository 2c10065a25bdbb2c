"""`shardctl migrate`: the bookkeeping schema on every shard."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from shardproxy.admin import migrations
from shardproxy.admin.migrations import ShardReport
from shardproxy.backend.control import Credentials
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    print_json,
    read_config,
    stdout,
    table,
)
from shardproxy.topology.build import build_snapshot


@ends_with_status
def migrate(
    config: ConfigOption = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is missing; change nothing.")] = False,
    seconds: Annotated[float, typer.Option("--timeout", help="Limit in seconds for each step.", min=1)] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Create or update the schema `_shardproxy` on all primaries.

    Safe to repeat: what is there stays. Two runs do not collide.

    Examples:
      shardctl migrate --dry-run    what would be done
      shardctl migrate              do it
    """
    settings = read_config(config)
    files = migrations.read_migrations(migrations.migrations_folder())
    reports = asyncio.run(
        migrations.migrate(build_snapshot(settings), Credentials.of(settings), seconds, files, dry_run)
    )
    if as_json:
        print_json({"dry_run": dry_run, "shards": [asdict(report) for report in reports]})
    else:
        _show(reports, dry_run)
    if any(report.error for report in reports):
        raise typer.Exit(Exit.FAILED)


def _show(reports: list[ShardReport], dry_run: bool) -> None:
    rows = table("shard", "would apply" if dry_run else "applied", "there already", "result")
    for report in reports:
        new = report.pending if dry_run else report.applied
        rows.add_row(report.shard, "\n".join(new) or "–", str(len(report.present)), _result(report))
    stdout().print(rows)


def _result(report: ShardReport) -> Text:
    if report.error:
        return Text(f"failed: {report.error}", "red")
    if report.newer:
        return Text(f"fine; it also has files that this version lacks: {', '.join(map(str, report.newer))}", "yellow")
    return Text("fine", "green")
