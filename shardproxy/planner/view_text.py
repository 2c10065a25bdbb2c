"""A view in a SELECT is replaced by its definition, as a derived table of its name: what it reads is then known.

Definitions are those of information_schema: canonical, with every name in full. Their literals are none of the
statement's, so they stay in the text. A shard that answers alone gets the client's own text and has the view itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from shardproxy.errors import UnsupportedError
from shardproxy.planner.draft import Draft, refuse
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.planner.scratch_labels import labelled, outside_columns
from shardproxy.planner.scratch_tables import Reference, find_tables
from shardproxy.planner.scratch_text import quoted
from shardproxy.sql.tokens import Token, tokenize
from shardproxy.topology.schema import TableSchema

_DEEPEST = 16  # views in views


def view_text(draft: Draft) -> Plan | None:
    """Puts definitions in; the draft is then another text with the literals of the first. Raises UnsupportedError."""
    if draft.kind is not StatementKind.SELECT or draft.shard_hint is not None or not _may_name_one(draft):
        return None
    try:
        views = _views(draft, draft.tokens)
    except UnsupportedError:
        return None  # a later pass says what is wrong with the statement
    if not views:
        return None
    _check(draft, views)
    sql, spans = _replaced(draft, draft.sql, draft.tokens, views, 0)
    draft.sql = sql
    draft.use(_tokens(draft, draft.tokens, spans))
    draft.expanded = True
    return None


def _may_name_one(draft: Draft) -> bool:
    views = draft.context.catalog.views
    return bool(views) and any(token.text in views for token in draft.tokens)


Views = list[tuple[Reference, TableSchema]]


def _views(draft: Draft, tokens: tuple[Token, ...]) -> Views:
    """The references that are views with a definition, in order."""
    inner = replace(draft)
    inner.use(tokens)
    found: Views = []
    for reference in find_tables(inner).references:
        keyspace = draft.context.snapshot.keyspaces.get(reference.database or draft.context.schema or "")
        if reference.cte is not None or keyspace is None:
            continue
        schema = draft.context.catalog.get(keyspace.name, reference.name)
        if schema is not None and schema.is_view:
            found.append((reference, schema))
    return sorted(found, key=lambda one: one[0].first)


def _check(draft: Draft, views: Views) -> None:
    if draft.has("LOCK", "UPDATE", "SHARE"):
        raise refuse("a lock on the rows of a view: lock those of its tables")
    if labelled(draft, [reference.first for reference, _ in views]):
        raise refuse("a view inside a select item without an alias: give it one")
    aliases = Counter(reference.alias.lower() for reference in find_tables(draft).references)
    for reference, schema in views:
        full = _full_names(draft.tokens, reference, schema)
        if full and (aliases[reference.alias.lower()] > 1 or labelled(draft, outside_columns(draft, full))):
            raise refuse(f"a column of a view with its database here: write `{reference.alias}`.`column`")


def _full_names(tokens: Sequence[Token], reference: Reference, schema: TableSchema) -> list[int]:
    """Indexes where database.view.column begins."""
    return [
        i
        for i in range(len(tokens) - 4)
        if tokens[i].text == schema.database
        and tokens[i + 1].text == tokens[i + 3].text == "."
        and tokens[i + 2].text == reference.alias
        and not reference.first <= i < reference.end
    ]


Spans = list[tuple[int, int, bytes]]


def _replaced(draft: Draft, sql: bytes, tokens: Sequence[Token], views: Views, depth: int) -> tuple[bytes, Spans]:
    """The text with its views replaced, and of each replacement the tokens from, to, and what stands there now."""
    spans: Spans = []
    for reference, schema in views:
        end = reference.end
        if reference.has_alias:
            end += 1 + (tokens[end].upper == "AS")
        spans.append((reference.first, end, _derived(draft, reference.alias, schema, depth)))
        spans += [(i, i + 2, b"") for i in _full_names(tokens, reference, schema)]
    spans = sorted(set(spans))
    out = bytearray()
    at = 0
    for first, end, text in spans:
        out += sql[at : tokens[first].start] + text
        at = tokens[end - 1].end
    return bytes(out + sql[at:]), spans


def _derived(draft: Draft, alias: str, schema: TableSchema, depth: int) -> bytes:
    """(definition) AS alias, with the view's column names where servers keep them apart from the definition."""
    name = f"'{schema.database}.{schema.name}'"
    if not schema.view_text:
        raise refuse(f"{name} is a view whose definition cannot be read: GRANT SHOW VIEW to backend.user")
    if depth >= _DEEPEST:
        raise refuse(f"{name} is a view of views of views, too deep to be looked into")
    if not schema.view_text.isascii():
        raise refuse(f"{name} is a view whose definition is not plain ASCII: name its tables")
    sql = schema.view_text.encode()
    modes = draft.context.modes
    if modes.no_backslash_escapes and b"\\" in sql:
        raise refuse(f"{name} is a view with a backslash, and sql_mode has NO_BACKSLASH_ESCAPES")
    tokens = tokenize(sql, modes, draft.context.mariadb).tokens
    if draft.context.mariadb and _only_ordered(tokens):
        # It orders the rows of a view that is merged, and not those of a derived table.
        raise refuse(f"{name} is a view with ORDER BY and no LIMIT: name its tables")
    sql, _ = _replaced(draft, sql, tokens, _views(draft, tokens), depth + 1)
    columns = b"" if draft.context.mariadb else b" (" + b", ".join(quoted(c.name) for c in schema.columns) + b")"
    return b"(" + sql + b") AS " + quoted(alias) + columns


def _only_ordered(tokens: Sequence[Token]) -> bool:
    """ORDER BY without LIMIT, outside all parentheses."""
    depth = 0
    outside: set[str] = set()
    for token in tokens:
        depth += (token.upper == "(") - (token.upper == ")")
        if depth == 0:
            outside.add(token.upper)
    return "ORDER" in outside and "LIMIT" not in outside


def _tokens(draft: Draft, tokens: Sequence[Token], spans: Spans) -> tuple[Token, ...]:
    """The tokens of the text with these replacements; those that are put in are no literals of the statement."""
    out: list[Token] = []
    shift = at = 0
    for first, end, text in spans:
        out += [_moved(token, shift) for token in tokens[at:first]]
        start = tokens[first].start + shift
        for token in tokenize(text, draft.context.modes, draft.context.mariadb).tokens:
            out.append(_moved(token, start)._replace(literal=-1))
        shift += len(text) - (tokens[end - 1].end - tokens[first].start)
        at = end
    return (*out, *(_moved(token, shift) for token in tokens[at:]))


def _moved(token: Token, by: int) -> Token:
    return token._replace(start=token.start + by, end=token.end + by)
