"""The few statements about the session whose words the proxy itself must understand: USE, KILL, SHOW WARNINGS, SET."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shardproxy.sql.modes import SqlModes
from shardproxy.sql.tokens import Token, TokenKind, tokenize
from shardproxy.sql.user_variables import variable_name
from shardproxy.sql.words import words

_LONGEST = 20  # digits of 2**64 − 1


def _tokens(sql: bytes, modes: SqlModes, mariadb: bool) -> list[Token]:
    tokens = list(tokenize(sql, modes, mariadb).tokens)
    while tokens and tokens[-1].text == ";":
        tokens.pop()
    return tokens


def _number(token: Token) -> int | None:
    """The value of a plain integer, None for anything else."""
    if token.kind is not TokenKind.NUMBER or not token.text.isdigit() or len(token.text.lstrip("0")) > _LONGEST:
        return None
    return int(token.text)


def parse_use(sql: bytes, modes: SqlModes, mariadb: bool) -> str:
    """The schema of a USE statement; the planner has checked its form."""
    return _tokens(sql, modes, mariadb)[1].text


def parse_savepoint(sql: bytes, modes: SqlModes, mariadb: bool = False) -> tuple[str, str]:
    """Verb and name: SAVEPOINT x, RELEASE SAVEPOINT x, ROLLBACK [WORK] TO [SAVEPOINT] x (verb ROLLBACK)."""
    tokens = _tokens(sql, modes, mariadb)
    return tokens[0].upper, tokens[-1].text


def savepoints_after(names: tuple[str, ...], texts: Iterable[bytes], modes: SqlModes) -> tuple[str, ...]:
    """Names (lower case) of the savepoints that exist once these statements have run, of those that existed before;
    statements other than about savepoints change nothing."""
    for text in texts:
        verb, name = parse_savepoint(text, modes)
        name = name.lower()
        if verb == "SAVEPOINT":
            names = (*(n for n in names if n != name), name)
        elif name in names:
            at = names.index(name)
            names = names[: at + (verb == "ROLLBACK")]
    return names


def access_mode(begin: bytes, modes: SqlModes) -> tuple[bytes, ...]:
    """The SET TRANSACTION that does for an XA branch what the options of this BEGIN or START TRANSACTION do."""
    words = [token.upper for token in _tokens(begin, modes, False)]
    for mode in ("ONLY", "WRITE"):
        if mode in words:
            return (b"SET TRANSACTION READ " + mode.encode(),)
    return ()


@dataclass(frozen=True, slots=True)
class Kill:
    ident: int
    query_only: bool


def parse_kill(sql: bytes, modes: SqlModes, mariadb: bool) -> Kill | None:
    """KILL [HARD | SOFT] [CONNECTION | QUERY] id; None for any other form (MariaDB's KILL USER, QUERY ID)."""
    tokens = _tokens(sql, modes, mariadb)[1:]
    if tokens and tokens[0].upper in ("HARD", "SOFT"):
        tokens = tokens[1:]
    query_only = bool(tokens) and tokens[0].upper == "QUERY"
    if tokens and tokens[0].upper in ("CONNECTION", "QUERY"):
        tokens = tokens[1:]
    ident = _number(tokens[0]) if len(tokens) == 1 else None
    return None if ident is None else Kill(ident, query_only)


@dataclass(frozen=True, slots=True)
class PrepareText:
    """verb: PREPARE, EXECUTE, DEALLOCATE; name in lower case; PREPARE has a literal, as written, or a variable; using:
    EXECUTE's variables."""

    verb: str
    name: str
    literal: bytes = b""
    variable: str = ""
    using: tuple[str, ...] = ()


def parse_prepare(sql: bytes, modes: SqlModes, mariadb: bool) -> PrepareText | None:
    """PREPARE name FROM text, EXECUTE name [USING @a, …], DEALLOCATE | DROP PREPARE name; None for any other form."""
    tokens = _tokens(sql, modes, mariadb)
    verb = tokens[0].upper
    at = 2 if verb in ("DEALLOCATE", "DROP") and len(tokens) > 1 and tokens[1].upper == "PREPARE" else 1
    if at >= len(tokens) or tokens[at].kind not in (TokenKind.WORD, TokenKind.NAME):
        return None
    name, rest = tokens[at].text.lower(), tokens[at + 1 :]
    if at == 2:
        return None if rest else PrepareText("DEALLOCATE", name)
    if verb == "EXECUTE" and not rest:
        return PrepareText(verb, name)
    if verb == "EXECUTE" and rest[0].upper == "USING":
        names = [variable_name(token) if token.kind is TokenKind.USER_VARIABLE else "" for token in rest[1::2]]
        commas = all(token.upper == "," for token in rest[2::2])
        return PrepareText(verb, name, using=tuple(names)) if all(names) and commas and len(rest) % 2 == 0 else None
    if verb == "PREPARE" and len(rest) == 2 and rest[0].upper == "FROM":
        if rest[1].kind is TokenKind.USER_VARIABLE:
            return PrepareText(verb, name, variable=variable_name(rest[1])) if variable_name(rest[1]) else None
        if rest[1].kind is TokenKind.STRING:
            return PrepareText(verb, name, sql[rest[1].start : rest[1].end])
    return None


@dataclass(frozen=True, slots=True)
class WarningsRequest:
    """SHOW WARNINGS | ERRORS [LIMIT [offset,] limit], SHOW COUNT(*) WARNINGS | ERRORS."""

    errors_only: bool
    count: bool
    offset: int = 0
    limit: int | None = None


def parse_show_warnings(sql: bytes, modes: SqlModes, mariadb: bool) -> WarningsRequest | None:
    """What a SHOW WARNINGS statement asks for; None when it is not of one of the forms above."""
    tokens = _tokens(sql, modes, mariadb)[1:]
    count = [token.upper for token in tokens[:4]] == ["COUNT", "(", "*", ")"]
    if count:
        tokens = tokens[4:]
    if not tokens or tokens[0].upper not in ("WARNINGS", "ERRORS"):
        return None
    errors_only = tokens[0].upper == "ERRORS"
    if len(tokens) == 1:
        return WarningsRequest(errors_only, count)
    words = [token.upper for token in tokens[1::2]]
    numbers = [_number(token) for token in tokens[2::2]]
    match words, numbers:
        case ["LIMIT"], [int(limit)] if not count:
            return WarningsRequest(errors_only, count, 0, limit)
        case ["LIMIT", ","], [int(offset), int(limit)] if not count:
            return WarningsRequest(errors_only, count, offset, limit)
        case ["LIMIT", "OFFSET"], [int(limit), int(offset)] if not count:
            return WarningsRequest(errors_only, count, offset, limit)
    return None


# Session variables that can be brought to any connection and back to DEFAULT, and under which statements over several
# shards are answered as on one server. Every other variable pins the session that sets it.
CARRIED = words("""
    autocommit sql_mode time_zone transaction_isolation tx_isolation transaction_read_only tx_read_only
    character_set_client character_set_connection character_set_results collation_connection
    wait_timeout interactive_timeout net_read_timeout net_write_timeout lock_wait_timeout innodb_lock_wait_timeout
    max_execution_time max_statement_time group_concat_max_len foreign_key_checks unique_checks sql_safe_updates
    sql_quote_show_create lc_time_names lc_messages div_precision_increment sql_notes sql_warnings innodb_strict_mode
    join_buffer_size sort_buffer_size tmp_table_size max_heap_table_size sql_big_selects cte_max_recursion_depth
    max_recursive_iterations optimizer_switch read_buffer_size
    auto_increment_increment auto_increment_offset big_tables block_encryption_mode bulk_insert_buffer_size
    default_regex_flags default_week_format end_markers_in_json eq_range_index_dive_limit
    information_schema_stats_expiry internal_tmp_mem_storage_engine low_priority_updates max_length_for_sort_data
    max_seeks_for_key max_sort_length mrr_buffer_size net_retry_count optimizer_prune_level optimizer_search_depth
    optimizer_use_condition_selectivity query_alloc_block_size query_cache_type query_cache_wlock_invalidate
    query_prealloc_size range_alloc_block_size range_optimizer_max_mem_size read_rnd_buffer_size sql_auto_is_null
    sql_buffer_result sql_select_limit timestamp tmp_memory_table_size updatable_views_with_limit
    windowing_use_high_precision
""")
# At other values than these the answers of several shards cannot be put together, only their rows: see
# SqlModes.gathered. A server sorts by a part of a long value then, or ends an answer early.
GATHERED_UNLESS: dict[str, tuple[str, ...]] = {
    "max_sort_length": ("1024",),
    "sql_buffer_result": ("0", "'OFF'"),
    "sql_select_limit": ("18446744073709551615",),
}
# What is taken for granted of a connection that says nothing else, whatever its server has for everybody: SQL literals.
ASSUMED = {
    "autocommit": "1",
    "max_sort_length": "1024",
    "sql_auto_is_null": "0",
    "sql_buffer_result": "0",
    "sql_select_limit": "18446744073709551615",
}
# Names of LAST_INSERT_ID(), which a session has and no connection.
INSERT_IDS = frozenset(("last_insert_id", "identity"))

_SCOPES = frozenset(("SESSION", "LOCAL"))
_CHARSET = ("character_set_client", "character_set_connection", "character_set_results", "collation_connection")
_TRANSACTION = {True: ("tx_isolation", "tx_read_only"), False: ("transaction_isolation", "transaction_read_only")}


def assigned_variables(sql: bytes, modes: SqlModes, mariadb: bool) -> tuple[str, ...]:
    """Names (lower case) of the variables that a SET statement assigns; user variables begin with @.

    SET NAMES and SET CHARACTER SET assign the four of the connection's character set; SET SESSION TRANSACTION the
    isolation and access mode. The planner has made sure that nothing else is assigned.
    """
    tokens = _tokens(sql, modes, mariadb)[1:]
    names: list[str] = []
    depth = 0
    start = True
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if start:
            start = False
            i, found = _target(tokens, i, mariadb)
            names.extend(found)
            continue
        if token.text == "(":
            depth += 1
        elif token.text == ")":
            depth -= 1
        elif token.text == "," and depth == 0:
            start = True
        i += 1
    return tuple(dict.fromkeys(names))


def _target(tokens: list[Token], i: int, mariadb: bool) -> tuple[int, tuple[str, ...]]:
    """The variable that an assignment at `i` names, and the position after the name."""
    token = tokens[i]
    if token.kind is TokenKind.SYSTEM_VARIABLE:
        name = token.text[2:].split(".")[-1].strip("`").lower()
        return i + 1, (name,)
    if token.upper in _SCOPES and i + 1 < len(tokens):
        if tokens[i + 1].upper == "TRANSACTION":
            return len(tokens), _TRANSACTION[mariadb]
        return _target(tokens, i + 1, mariadb)
    if token.upper == "NAMES" or (token.upper == "CHARSET"):
        return i + 1, _CHARSET
    if token.upper == "CHARACTER" and i + 1 < len(tokens) and tokens[i + 1].upper == "SET":
        return i + 2, _CHARSET
    return i + 1, (token.text.lower(),)
