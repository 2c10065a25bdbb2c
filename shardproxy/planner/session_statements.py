"""Statements about the session: transactions, SET, USE, KILL, SHOW WARNINGS. No table, so no shard of their own."""

from __future__ import annotations

from shardproxy.planner.blocks import SYSTEM_DATABASES, unknown_database
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.local_functions import NOT_FOR_SERVERS
from shardproxy.planner.plan import Opcode, PinReason, Plan, Spread, StatementKind
from shardproxy.sql.session_text import CARRIED, INSERT_IDS, assigned_variables
from shardproxy.sql.tokens import Token, TokenKind


def session_statements(draft: Draft) -> Plan | None:
    """The plan of such a statement; its form is checked here, its values are read by the session."""
    match draft.kind:
        case StatementKind.BEGIN:
            _begin(draft)
        case StatementKind.COMMIT | StatementKind.ROLLBACK:
            _end(draft)
        case StatementKind.SAVEPOINT:
            _savepoint(draft)
        case StatementKind.SET_TRANSACTION:
            _set_transaction(draft)
        case StatementKind.SET:
            _set(draft)
        case StatementKind.USE:
            return _use(draft)
        case StatementKind.KILL:
            _kill(draft)
        case StatementKind.SHOW_WARNINGS:
            pass
        case StatementKind.PREPARE:
            if draft.shard_hint is not None:
                return None
        case StatementKind.EXPLAIN_ROUTE:
            _explain_route(draft)
        case StatementKind.DO:
            if draft.shard_hint is None:
                return _do(draft)
            return None
        case StatementKind.LOCK_TABLES if draft.word(0) == "UNLOCK":
            if draft.word(1) not in ("TABLES", "TABLE") or len(draft.tokens) != 2:
                raise refuse("only UNLOCK TABLES is supported")
            return draft.plan(Opcode.NONE, "session: UNLOCK TABLES", spread=Spread.ANY)
        case _:
            return None
    return draft.plan(Opcode.NONE, f"session: {draft.kind.value}")


def _words(draft: Draft, start: int = 0) -> str:
    return " ".join(t.upper or t.text for t in draft.tokens[start:])


def _explain_route(draft: Draft) -> None:
    """The statement is planned when it is explained; here only that it begins where its words say."""
    one, two, three = draft.tokens[:3]
    between = draft.sql[: one.start] + draft.sql[one.end : two.start] + draft.sql[two.end : three.start]
    if between.strip():
        raise refuse("EXPLAIN ROUTE takes no comments before the statement")


def _begin(draft: Draft) -> None:
    text = _words(draft)
    if text in ("BEGIN", "BEGIN WORK"):
        return
    if not draft.starts("START", "TRANSACTION"):
        raise refuse(
            "only BEGIN, BEGIN WORK and START TRANSACTION begin a transaction; compound blocks are not supported"
        )
    options = [part.strip() for part in _words(draft, 2).split(",")] if len(draft.tokens) > 2 else []
    if any(option not in ("WITH CONSISTENT SNAPSHOT", "READ ONLY", "READ WRITE") for option in options):
        raise refuse(f"START TRANSACTION {_words(draft, 2)} is not supported", 1064)
    if "WITH CONSISTENT SNAPSHOT" in options:
        draft.snapshot = True


_ISOLATION_LEVELS = frozenset(
    f"ISOLATION LEVEL {level}" for level in ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
)
_ACCESS_MODES = frozenset({"READ ONLY", "READ WRITE"})


def _set_transaction(draft: Draft) -> None:
    """It reaches a server only with the next transaction: a mistake must be told now."""
    parts = [part.strip() for part in _words(draft, 2).split(",")]
    levels = [part for part in parts if part in _ISOLATION_LEVELS]
    modes = [part for part in parts if part in _ACCESS_MODES]
    if len(levels) > 1 or len(modes) > 1 or len(levels) + len(modes) != len(parts):
        raise refuse(f"cannot read SET TRANSACTION {_words(draft, 2)}", 1064)


def _end(draft: Draft) -> None:
    rest = _words(draft, 1).removeprefix("WORK").strip()
    rest = rest.removeprefix("AND NO CHAIN").strip().removeprefix("NO RELEASE").strip()
    if rest:
        raise refuse(f"{draft.kind.value} {rest} is not supported: begin the next transaction with BEGIN")


def _savepoint(draft: Draft) -> None:
    """SAVEPOINT x; RELEASE SAVEPOINT x; ROLLBACK [WORK] TO [SAVEPOINT] x."""
    words = [t.upper for t in draft.tokens[:-1]]
    forms = (["SAVEPOINT"], ["RELEASE", "SAVEPOINT"], ["ROLLBACK", "TO"], ["ROLLBACK", "TO", "SAVEPOINT"],
             ["ROLLBACK", "WORK", "TO"], ["ROLLBACK", "WORK", "TO", "SAVEPOINT"])  # fmt: skip
    if words not in forms or not is_name(draft.tokens[-1]):
        raise refuse(f"cannot read {_words(draft)}", 1064)


def _use(draft: Draft) -> Plan:
    if len(draft.tokens) != 2 or not is_name(draft.tokens[1]):
        raise refuse("USE takes the name of one database", 1064)
    name = draft.tokens[1].text
    keyspace = draft.context.snapshot.keyspaces.get(name)
    if keyspace is None and name.lower() not in SYSTEM_DATABASES:
        raise refuse(unknown_database(draft, name), 1049)
    return draft.plan(Opcode.NONE, "session: USE", keyspace=keyspace)


def _kill(draft: Draft) -> None:
    target = draft.tokens[2:] if draft.word(1) in ("CONNECTION", "QUERY") else draft.tokens[1:]
    if len(target) != 1 or target[0].literal < 0:
        raise refuse("KILL takes [CONNECTION | QUERY] and the id that CONNECTION_ID() gave")


def _do(draft: Draft) -> Plan:
    if draft.has("SELECT", "FROM"):
        raise refuse("DO with a subquery is not supported: use SELECT")
    _refuse_ours(draft)
    return draft.plan(Opcode.NONE, "no table: any shard", spread=Spread.ANY)


def _refuse_ours(draft: Draft) -> None:
    """Functions whose answer a server would give for its own connection."""
    odd = sorted(draft.functions & NOT_FOR_SERVERS)
    if odd:
        raise refuse(f"{odd[0].upper()}() is known to the proxy only: SELECT {odd[0].upper()}() and use the value")


# ── SET ──

_NEXT_ONLY = frozenset({"transaction_isolation", "tx_isolation", "transaction_read_only", "tx_read_only"})
_ELSEWHERE = frozenset({"GLOBAL", "PERSIST", "PERSIST_ONLY"})


def _set(draft: Draft) -> None:
    """Checks each assignment. Raises for what would change more than the session; pins for user variables."""
    first = draft.word(1)
    if first in ("PASSWORD", "ROLE", "DEFAULT", "RESOURCE", "STATEMENT"):
        raise refuse(f"SET {first} is not supported")
    if draft.has("SELECT"):
        raise refuse("SET with a subquery is not supported: SELECT the value first")
    _refuse_ours(draft)
    for assignment in _assignments(draft.tokens[1:]):
        _check_assignment(draft, assignment)
    names = assigned_variables(draft.sql, draft.context.modes, draft.context.mariadb)
    if any(name not in CARRIED and name not in INSERT_IDS and not name.startswith("@") for name in names):
        draft.pins[PinReason.UNKNOWN_VARIABLE] = None


def _assignments(tokens: tuple[Token, ...]) -> list[tuple[Token, ...]]:
    """Cut at the commas that are outside parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        if token.upper == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [tuple(part) for part in parts]


def _check_assignment(draft: Draft, tokens: tuple[Token, ...]) -> None:
    if not tokens:
        raise refuse("cannot read this SET", 1064)
    first = tokens[0]
    scope = first.text[2:].partition(".")[0].upper() if first.kind is TokenKind.SYSTEM_VARIABLE else first.upper
    if scope in _ELSEWHERE and len(tokens) > 1 and tokens[1].text not in ("=", ":="):
        raise refuse(f"SET {scope} changes servers for everybody: not supported through the proxy")
    if first.kind is TokenKind.SYSTEM_VARIABLE and scope in _ELSEWHERE:
        raise refuse(f"SET {scope} changes servers for everybody: not supported through the proxy")
    if first.kind is TokenKind.SYSTEM_VARIABLE and first.text[2:].lower() in _NEXT_ONLY:
        raise refuse(f"SET {first.text} is for the next transaction only: write SET TRANSACTION, or @@SESSION.")
