"""`shardctl ddl`: schema changes over several shards, and what became of them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.text import Text

from shardproxy.admin import ddl as admin
from shardproxy.admin.ddl import Operator
from shardproxy.backend.control import Credentials
from shardproxy.backend.ddl_record import Recorded, State
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    ends_with_status,
    note,
    print_json,
    read_config,
    stdout,
    table,
)
from shardproxy.reshard.leading import stored_maps_of
from shardproxy.topology.bootstrap import with_stored
from shardproxy.topology.build import build_snapshot

app = typer.Typer(
    name="ddl",
    help="Schema changes over several shards: list them, and finish those that stopped in the middle.\n\n"
    "The servers are asked, not a proxy. Without a command: list.",
    invoke_without_command=True,
    rich_markup_mode="rich",
)
Ident = Annotated[str, typer.Argument(help="The change, as the list shows it: KEYSPACE-NUMBER.", metavar="ID")]
Has = Annotated[list[str], typer.Option("--has", help="This shard has the change; you have looked.", metavar="SHARD")]
Lacks = Annotated[
    list[str], typer.Option("--lacks", help="This shard does not have the change; you have looked.", metavar="SHARD")
]
_STYLES = {State.DONE: "green", State.FAILED: "red", State.RUNNING: "yellow", State.REVERTED: "green"}


def _operator(config: Any, has: list[str] | None = None, lacks: list[str] | None = None) -> Operator:
    settings = read_config(config)
    return Operator(
        with_stored(build_snapshot(settings), asyncio.run(stored_maps_of(settings))),
        Credentials.of(settings),
        30.0,
        note,
        frozenset(has or ()),
        frozenset(lacks or ()),
    )


@app.callback()
@ends_with_status
def changes(context: typer.Context, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List schema changes, unfinished ones first."""
    if context.invoked_subcommand is not None:
        return
    found = asyncio.run(admin.list_changes(_operator(config)))
    if as_json:
        print_json({"changes": [to_json(record) for record in found]})
        return
    rows = table("id", "state", "started", "tables", "shards with it", "statement")
    for record in found:
        have = [shard.shard for shard in record.shards if shard.state is State.DONE]
        rows.add_row(
            Text(record.ident),
            _state(record.state),
            record.started_at,
            Text(", ".join(record.change.names)),
            Text(f"{len(have)} of {len(record.shards)}"),
            Text(_statement(record)[:60]),
        )
    stdout().print(rows)


@app.command()
@ends_with_status
def show(ident: Ident, config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Show one change, shard by shard.

    Examples:
      shardctl ddl show main-7
    """
    _print(asyncio.run(admin.show_change(_operator(config), ident)), as_json)


@app.command()
@ends_with_status
def resume(
    ident: Ident,
    config: ConfigOption = DEFAULT_CONFIG,
    has: Has = [],  # noqa: B006 — typer wants a list
    lacks: Lacks = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Run an unfinished change on the shards that lack it.

    Where the record says "running", the shard is looked at: its tables are as before, or changed.

    Examples:
      shardctl ddl resume main-7
      shardctl ddl resume main-7 --has b    when looking does not tell
    """
    _print(asyncio.run(admin.resume(_operator(config, has, lacks), ident)), as_json)


@app.command()
@ends_with_status
def revert(
    ident: Ident,
    config: ConfigOption = DEFAULT_CONFIG,
    has: Has = [],  # noqa: B006
    lacks: Lacks = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Undo an unfinished change on the shards that have it, where a safe reverse is known.

    CREATE TABLE: drops the table, if it is empty. CREATE INDEX and ADD INDEX: drop the index. ADD COLUMN: drops the
    column, its values are lost. RENAME TABLE: back. CREATE VIEW: drops the view.

    Examples:
      shardctl ddl revert main-7
    """
    _print(asyncio.run(admin.revert(_operator(config, has, lacks), ident)), as_json)


def to_json(record: Recorded) -> dict[str, Any]:
    """A record as `--json` prints it."""
    return {
        "id": record.ident,
        "state": record.state.value,
        "keyspace": record.change.keyspace,
        "tables": list(record.change.names),
        "statement": _statement(record),
        "started_at": record.started_at,
        "changed_at": record.changed_at,
        "error": record.error,
        "reverse": record.change.info.get("reverse"),
        "shards": [
            {
                "shard": shard.shard,
                "state": shard.state.value,
                "error": shard.error,
                "changed_at": shard.changed_at,
                "before": shard.before,
            }
            for shard in record.shards
        ],
    }


def _print(record: Recorded, as_json: bool) -> None:
    if as_json:
        print_json(to_json(record))
        return
    out = stdout()
    out.print(Text.assemble((f"{record.ident}: ", "bold"), _state(record.state), f", started {record.started_at}"))
    out.print(Text(_statement(record)))
    if record.error:
        out.print(Text(record.error, "red"))
    rows = table("shard", "state", "since", "error")
    for shard in record.shards:
        rows.add_row(Text(shard.shard), _state(shard.state), shard.changed_at, Text(shard.error))
    out.print(rows)


def _state(state: State) -> Text:
    return Text(state.value, _STYLES.get(state, ""))


def _statement(record: Recorded) -> str:
    return record.change.statement.decode("utf-8", "replace")
