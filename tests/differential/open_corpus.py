"""The open corpus: statements of other people's test suite, as input for both sides. It is not part of the project.

SHARDPROXY_OPEN_CORPUS  where it is (default: shared/corpora/sql_open.jsonl beside the checkout)

A line is a JSON object: `file` and `line`, `db` (default database), `conn` (which of the file's connections says it),
`sql`. Tables are sharded by their column `id` under a hash map of integers; those named `global…` are reference tables,
those named `noshard…` single ones, and so are those whose `id` is never an integer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.differential.episodes import COUNT, ROWS, Step

DATABASES = ("schema1", "schema2", "schema3")
PATH = Path(
    os.environ.get("SHARDPROXY_OPEN_CORPUS")
    or Path(__file__).absolute().parents[2].parent / "shared" / "corpora" / "sql_open.jsonl"
)
_CREATE = re.compile(r"create\s+table\s+(?:if\s+not\s+exists\s+)?([`\w.]+)", re.IGNORECASE)
_ID = re.compile(r"[(,]\s*`?id`?\s+(\w+)", re.IGNORECASE)
# What the suite says to its own proxy; statements that sleep for minutes; lists of databases (servers behind the proxy
# have `_shardproxy`) and of views, which are refused in part.
_FOREIGN = re.compile(
    r"/\*!?\s*dble|sleep\s*\(\s*\d{2}|^\s*show\s+(databases|schemas|full\s+tables)|"
    r"^\s*(show @@|reload @@|dryrun|load data|lock |unlock |prepare |execute |deallocate )",
    re.IGNORECASE,
)
# Answers that are another each time, or about the server that was asked.
_FLEETING = re.compile(
    r"now\s*\(|sysdate|current_time|curtime|curdate|current_date|utc_|rand\s*\(|uuid|connection_id|version|localtime|"
    r"unix_timestamp\s*\(\s*\)|^\s*explain|last_insert_id|@@|user\s*\(|benchmark|sleep|processlist|"
    r"show (global |session )?(variables|status)|"
    r"show (engine|table status|index|indexes|keys|create|full|databases|tables|character|collation|charset)",
    re.IGNORECASE,
)  # fmt: skip
_LIMIT = re.compile(r"\blimit\b", re.IGNORECASE)
_UNDETERMINED = re.compile(r"group_concat|json_arrayagg|json_objectagg|any_value|@\w+\s*:=", re.IGNORECASE)
_VERBS = {"insert": "insert", "replace": "replace", "update": "update", "delete": "delete"}
_TRANSACTION = ("begin", "start", "commit", "rollback", "savepoint", "release")
_DDL = ("create", "drop", "alter", "truncate", "rename")


@dataclass(frozen=True, slots=True)
class Statement:
    """conn: which of the file's connections says it, "" for the first; ddl: it changes tables."""

    file: str
    line: int
    database: str
    conn: str
    step: Step
    ddl: bool


def files() -> list[str]:
    """Names of the suite's files, in order; none when the corpus is not there."""
    return list(dict.fromkeys(statement.file for statement in _all()))


def statements() -> dict[str, list[Statement]]:
    """The statements of each file."""
    return {name: list(found) for name, found in groupby(_all(), key=lambda s: s.file)}


def _all() -> Iterator[Statement]:
    if not PATH.exists():
        return
    for text in PATH.read_text().splitlines():
        line = json.loads(text)
        sql = line["sql"].strip().rstrip(";").strip()
        if sql and not _FOREIGN.search(sql) and not re.match(r"set\s+(@@)?(global|persist)", sql, re.I):
            step = Step(_label(sql), sql, compare=_compare(sql), loose=("float",))
            ddl = step.label.split()[0] in _DDL
            yield Statement(line["file"], line["line"], line["db"], line.get("conn") or "", step, ddl)


def _label(sql: str) -> str:
    verb = re.split(r"[\s(]", sql.lstrip("( "), maxsplit=1)[0].lower()
    if verb in _TRANSACTION or re.match(r"set\s+(@@(session\.)?|session\s+)?autocommit", sql, re.I):
        return "transaction"
    if verb in ("set", "use"):
        return "session"
    if verb in _VERBS:
        return f"{verb} {'select' if verb in ('insert', 'replace') and re.search('select', sql, re.I) else ''}".strip()
    return verb if verb in (*_DDL, "show", "desc", "describe", "explain") else "select"


def _compare(sql: str) -> str:
    return COUNT if _FLEETING.search(sql) or _LIMIT.search(sql) or _UNDETERMINED.search(sql) else ROWS


def keyspaces() -> str:
    """shardproxy.toml's keyspaces for all tables that the corpus creates."""
    tables: dict[str, dict[str, str]] = {name: {} for name in DATABASES}
    unfit = _without_integers()
    for statement in _all():
        found = _CREATE.match(statement.step.sql)
        if not found:
            continue
        names = found.group(1).replace("`", "").lower().split(".")
        database = names[0] if len(names) == 2 else statement.database
        name = names[-1]
        if database in tables and re.fullmatch(r"\w{1,64}", name):
            kind = '{ key = "id" }'
            if name.startswith("global"):
                kind = "{ reference = true }"
            elif "noshard" in name or "no_shard" in name or name in unfit:
                kind = '{ single = "shard2" }'
            tables[database][name] = kind
    lines = []
    for database, kinds in tables.items():
        lines += [f"[keyspaces.{database}]", 'key_type = "int"', 'map = "hash"',
                  "ring = { shard1 = 1, shard2 = 1, shard3 = 1 }", f"[keyspaces.{database}.tables]",
                  *(f'"{name}" = {kind}' for name, kind in kinds.items())]  # fmt: skip
    return "\n".join(lines)


def _without_integers() -> set[str]:
    """Names of the tables, without their database, whose column `id` is of other types alone."""
    types: dict[str, set[bool]] = {}
    for statement in _all():
        created, column = _CREATE.match(statement.step.sql), _ID.search(statement.step.sql)
        if created and column:
            name = created.group(1).replace("`", "").lower().split(".")[-1]
            types.setdefault(name, set()).add("int" in column.group(1).lower())
    return {name for name, integers in types.items() if integers == {False}}


def table_names() -> list[str]:
    """database.table of all that the corpus may create."""
    found = []
    database = ""
    for line in keyspaces().splitlines():
        if line.startswith("[keyspaces.") and line.endswith(".tables]"):
            database = line.split(".")[1]
        elif line.startswith('"'):
            found.append(f"{database}.`{line.split(chr(34))[1]}`")
    return found
