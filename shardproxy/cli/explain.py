"""`shardctl explain "SQL"`: what the proxy would do with a statement."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from shardproxy.cli.admin_client import AdminClient
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    NoProxy,
    ends_with_status,
    note,
    print_json,
    read_config,
    stdout,
)


@ends_with_status
def explain(
    sql: Annotated[str, typer.Argument(help='The statement; "-" reads it from stdin.', metavar="SQL")],
    config: ConfigOption = DEFAULT_CONFIG,
    schema: Annotated[
        str | None, typer.Option("--schema", "-s", help="Default keyspace; not needed when there is only one.")
    ] = None,
    values: Annotated[
        str, typer.Option("--values", help="JSON array with the values of the statement's ? marks.", metavar="JSON")
    ] = "[]",
    as_json: JsonOption = False,
) -> None:
    """Show where a statement would go, and why, without running it.

    The running proxy is asked, with its own map and schema.

    Examples:
      shardctl explain "SELECT * FROM users WHERE uid = 42"
      shardctl explain --values '[42]' "SELECT * FROM users WHERE uid = ?"
      shardctl explain --schema main - < query.sql
    """
    settings = read_config(config)
    text = sys.stdin.read() if sql == "-" else sql
    if schema is None and len(settings.keyspaces) == 1:
        [schema] = settings.keyspaces
    body = {"sql": text, "schema": schema, "values": _values(values)}
    try:
        answer = AdminClient.of(settings).post("/api/explain", body)
    except NoProxy as error:
        raise NoProxy(f"explain asks the running proxy, and {error}") from error
    if as_json:
        print_json(answer)
    else:
        stdout().print(_shown(answer))


def _values(text: str) -> list[Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list):
        note(f"--values: found {text!r}; expected a JSON array such as '[42, \"zoe\", null]'")
        raise typer.Exit(Exit.UNUSABLE)
    return values


def _shown(answer: dict[str, Any]) -> Table:
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(overflow="fold")
    for name, value in _lines(answer):
        rows.add_row(name, value if isinstance(value, Text) else Text(value))
    return rows


def _lines(answer: dict[str, Any]) -> list[tuple[str, str | Text]]:
    lines: list[tuple[str, str | Text]] = [
        ("statement", answer["digest"]),
        ("plan", f"{answer['opcode']} ({answer['kind']}), rung {answer['rung']}: {answer['rung_name']}"),
    ]
    if answer["reason"]:
        lines.append(("because", answer["reason"]))
    if answer.get("not_above"):
        lines.append(("not the rung above", answer["not_above"]))
    if answer["keyspace"]:
        lines.append(("keyspace", answer["keyspace"]))
    if answer["tables"]:
        lines.append(("tables", ", ".join(answer["tables"])))
    if answer["pins"]:
        lines.append(("pins", Text(", ".join(answer["pins"]), "yellow")))
    error = answer["error"]
    if error is not None:
        lines.append(("error", Text(f"{error['code']} ({error['sqlstate']}): {error['message']}", "red")))
        return lines
    if not answer["shards"]:
        lines.append(("goes to", "no server: the proxy answers"))
        return lines
    lines.append(("goes to", f"{', '.join(answer['shards'])} ({answer['role']})"))
    if answer["sql"] is not None:
        lines.append(("sent", answer["sql"]))
    lines += [(f"sent to {shard}", text) for shard, text in answer.get("sql_by_shard", {}).items()]
    return lines
