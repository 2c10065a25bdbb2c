"""`shardctl lookup`: lookup indexes, their backfill, and whether they agree with their tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from shardproxy.admin.lookup.backfill import Backfilled
from shardproxy.admin.lookup.backfill import backfill as fill
from shardproxy.admin.lookup.verify import Differences
from shardproxy.admin.lookup.verify import verify as compare
from shardproxy.admin.lookup.work import Listed, list_indexes, prepare
from shardproxy.backend.control import Credentials
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    note,
    print_json,
    read_config,
    stderr,
    stdout,
    table,
)
from shardproxy.config import Config
from shardproxy.reshard.leading import stored_maps_of
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot
from shardproxy.topology.model import Snapshot

app = typer.Typer(
    name="lookup",
    help="Lookup indexes: list them, fill them from their tables, and compare the two.\n\n"
    "The servers are asked, not a proxy. Without a command: list.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)
TableArgument = Annotated[str, typer.Argument(help="The table: NAME, or KEYSPACE.NAME.", metavar="TABLE")]
IndexArgument = Annotated[str, typer.Argument(help="The index's columns: email, or tenant,name.", metavar="INDEX")]
Batch = Annotated[int, typer.Option("--batch", help="Rows read and locked at once.", min=1, max=100_000)]
Seconds = Annotated[float, typer.Option("--timeout", help="Limit in seconds for each step.", min=1)]


@app.callback()
@ends_with_status
def indexes(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the lookup indexes of the file and their states."""
    if context.invoked_subcommand is not None:
        return
    settings = read_config(config)

    async def listed() -> list[Listed]:
        return await list_indexes(await _stored(settings), Credentials.of(settings), 30.0)

    found = asyncio.run(listed())
    if as_json:
        print_json({"indexes": [asdict(one) for one in found]})
        return
    rows = table("keyspace", "index", "state")
    for one in found:
        rows.add_row(one.keyspace, Text(one.name), Text(one.state, "green" if one.state == "ready" else "yellow"))
    stdout().print(rows if found else "the file has no lookup index")


@app.command()
@ends_with_status
def backfill(
    name: TableArgument,
    index: IndexArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    batch: Batch = 1000,
    seconds: Seconds = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Make the entries of all rows; then statements are routed by the index.

    First start every proxy with the index in its file: from then on they keep it up to date. May be ended and started
    again at any time, and run while clients write.

    Examples:
      shardctl lookup backfill users email
      shardctl lookup backfill shop.users tenant,name
    """
    settings = read_config(config)

    async def work() -> Backfilled:
        job = await prepare(await _stored(settings), Credentials.of(settings), seconds, name, index, batch)
        with _bar("backfill", job.rows) as advance:
            return await fill(job, advance)

    done = asyncio.run(work())
    if as_json:
        print_json({**asdict(done), "ready": done.ready})
    else:
        pruned = f", {done.pruned} entries without row taken away" if done.pruned else ""
        stdout().print(f"{done.rows} rows read, {done.entries} entries made{pruned}: {'ready' if done.ready else ''}")
    if not done.ready:
        note("not ready: values that are not unique over the shards. Change or delete rows, then run it again:")
        for line in done.conflicts:
            note(f"  {line}")
        raise typer.Exit(Exit.FAILED)


@app.command()
@ends_with_status
def verify(
    name: TableArgument,
    index: IndexArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make missing entries, and take away those without a row.")
    ] = False,
    batch: Batch = 1000,
    seconds: Seconds = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Compare all rows with all entries, both ways.

    Exit status 1 when they differ (with --repair: still differ).

    Examples:
      shardctl lookup verify users email
      shardctl lookup verify users email --repair
    """
    settings = read_config(config)

    async def work() -> Differences:
        job = await prepare(await _stored(settings), Credentials.of(settings), seconds, name, index, batch)
        with _bar("verify", job.rows) as advance:
            return await compare(job, repair, advance)

    told = asyncio.run(work())
    if as_json:
        print_json({**asdict(told), "left": told.left})
    else:
        stdout().print(
            f"{told.rows} rows, {told.entries} entries: {told.missing} rows without entry, {told.orphans} entries "
            f"without row, {told.conflicts} values that are not unique; {told.repaired} repaired"
        )
        for line in told.examples:
            note(f"  {line}")
    if told.left:
        raise typer.Exit(Exit.FAILED)


async def _stored(settings: Config) -> Snapshot:
    """The file with the maps of the store. Raises ShardproxyError."""
    return with_stored(build_snapshot(settings), await stored_maps_of(settings))


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, when that is a terminal. The server's number of rows is an estimate."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task(what, total=total or None)
        yield lambda rows: progress.advance(task, rows)
