"""What a statement is, from its first words. Never by the parser, which takes much of MySQL for something else."""

from __future__ import annotations

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft
from shardproxy.planner.plan import Plan, StatementKind
from shardproxy.sql.words import words

_BY_FIRST_WORD = {
    "SELECT": StatementKind.SELECT,
    "VALUES": StatementKind.SELECT,
    "TABLE": StatementKind.SELECT,
    "INSERT": StatementKind.INSERT,
    "REPLACE": StatementKind.REPLACE,
    "UPDATE": StatementKind.UPDATE,
    "DELETE": StatementKind.DELETE,
    "BEGIN": StatementKind.BEGIN,
    "COMMIT": StatementKind.COMMIT,
    "SAVEPOINT": StatementKind.SAVEPOINT,
    "USE": StatementKind.USE,
    "SHOW": StatementKind.SHOW,
    "CREATE": StatementKind.DDL,
    "ALTER": StatementKind.DDL,
    "DROP": StatementKind.DDL,
    "TRUNCATE": StatementKind.DDL,
    "RENAME": StatementKind.DDL,
    "KILL": StatementKind.KILL,
    "DO": StatementKind.DO,
    "CALL": StatementKind.CALL,
    "LOCK": StatementKind.LOCK_TABLES,
    "UNLOCK": StatementKind.LOCK_TABLES,
    "PREPARE": StatementKind.PREPARE,
    "EXECUTE": StatementKind.PREPARE,
    "DEALLOCATE": StatementKind.PREPARE,
}
_ADMIN = words("""
    ANALYZE BACKUP BINLOG CACHE CHANGE CHECK CHECKSUM CLONE FLUSH GRANT HELP IMPORT INSTALL OPTIMIZE PURGE
    REPAIR RESET RESTART REVOKE SHUTDOWN STOP UNINSTALL
""")
_ROUTED = ("(", "WITH", "EXPLAIN", "SET", "START", "ROLLBACK")
_QUERY_VERBS = {"SELECT", "UPDATE", "DELETE", "VALUES", "TABLE"}


def classify(draft: Draft) -> Plan | None:
    """Sets `kind`."""
    draft.kind = _kind(draft)
    return None


def _kind(draft: Draft) -> StatementKind:
    first, second = draft.word(0), draft.word(1)
    if first == "(":
        return _BY_FIRST_WORD.get(_inside(draft), StatementKind.OTHER)
    if first == "WITH":
        return _BY_FIRST_WORD.get(_after_ctes(draft), StatementKind.OTHER)
    if first == "START":
        return StatementKind.BEGIN if second == "TRANSACTION" else StatementKind.ADMIN
    if first == "ROLLBACK":
        return StatementKind.SAVEPOINT if draft.has("TO") else StatementKind.ROLLBACK
    if first == "RELEASE":
        return StatementKind.SAVEPOINT
    if first == "SET":
        return StatementKind.SET_TRANSACTION if second == "TRANSACTION" else StatementKind.SET
    if first == "DROP" and second == "PREPARE":
        return StatementKind.PREPARE
    if first == "SHOW" and _shows_diagnostics(draft):
        return StatementKind.SHOW_WARNINGS
    if first in ("DESC", "DESCRIBE", "EXPLAIN"):
        if second == "ROUTE" and (draft.word(2) in _ROUTED or draft.word(2) in _BY_FIRST_WORD):
            return StatementKind.EXPLAIN_ROUTE
        return StatementKind.EXPLAIN if _explains(draft) else StatementKind.DESCRIBE
    if first == "ANALYZE" and second in ("FORMAT", "SELECT", "WITH", "(") and draft.context.mariadb:
        return StatementKind.EXPLAIN
    if first in _ADMIN:
        return StatementKind.ADMIN
    return _BY_FIRST_WORD.get(first, StatementKind.OTHER)


def _inside(draft: Draft) -> str:
    """The verb of a parenthesised query: SELECT, or what a WITH there leads to."""
    at = 0
    while draft.word(at) == "(":
        at += 1
    verb = draft.word(at)
    return "SELECT" if verb in ("SELECT", "WITH", "VALUES", "TABLE") else ""


def _after_ctes(draft: Draft) -> str:
    """The verb that follows WITH name AS ( … ), …"""
    at = 0
    while at < len(draft.tokens):
        if draft.word(at) == "(":
            at = closing(draft, at) + 1
            if draft.word(at) in _QUERY_VERBS:
                return draft.word(at)
            if draft.word(at) == "(":
                return "SELECT"
            continue
        at += 1
    return ""


def _shows_diagnostics(draft: Draft) -> bool:
    at = 5 if draft.starts("SHOW", "COUNT", "(", "*", ")") else 1
    return draft.word(at) in ("WARNINGS", "ERRORS")


def _explains(draft: Draft) -> bool:
    """EXPLAIN of a statement, not of a table: a verb follows, perhaps after EXTENDED, FORMAT=…, ANALYZE."""
    words = [draft.word(i) for i in range(1, min(6, len(draft.tokens)))]
    if words and words[0] in ("EXTENDED", "PARTITIONS", "FORMAT", "ANALYZE", "FOR"):
        return len(words) > 1
    return bool(words) and words[0] in (
        "SELECT",
        "INSERT",
        "REPLACE",
        "UPDATE",
        "DELETE",
        "WITH",
        "VALUES",
        "TABLE",
        "(",
    )
