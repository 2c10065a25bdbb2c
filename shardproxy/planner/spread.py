"""May the shards' answers simply be put one after the other? Decided twice: by the tree and by the words."""

from __future__ import annotations

from shardproxy.planner.blocks import Facts, SourceKind
from shardproxy.planner.calls import UNKNOWN
from shardproxy.planner.draft import Draft
from shardproxy.planner.plan import Group
from shardproxy.sql.functions import AGGREGATES, LOCKS, SERVER, SESSION

# Words that make a SELECT's answer more than its rows, or a row depend on other rows. Unquoted and not after a dot.
_WORDS = {
    "GROUP": "GROUP BY",
    "HAVING": "HAVING",
    "DISTINCT": "DISTINCT",
    "DISTINCTROW": "DISTINCT",
    "ORDER": "ORDER BY",
    "LIMIT": "LIMIT",
    "FETCH": "FETCH",
    "OFFSET": "OFFSET",
    "OVER": "a window function",
    "WINDOW": "WINDOW",
    "UNION": "UNION",
    "INTERSECT": "INTERSECT",
    "EXCEPT": "EXCEPT",
    "MINUS": "MINUS",
    "INTO": "INTO",
    "FOR": "a lock (FOR …)",
    "LOCK": "LOCK IN SHARE MODE",
    "PROCEDURE": "PROCEDURE",
    "SQL_CALC_FOUND_ROWS": "SQL_CALC_FOUND_ROWS",
    "WITH": "WITH",
    "AGAINST": "a full-text search, whose relevance counts all rows",
    "JSON_TABLE": "JSON_TABLE",
    "LATERAL": "LATERAL",
    "ROWNUM": "ROWNUM",
}


def obstacle(draft: Draft, facts: Facts, groups: tuple[Group, ...]) -> str:
    """What forces the statement onto one shard, for people; "" when the answers may be concatenated."""
    for word in sorted(_WORDS.keys() & draft.words):
        if word in ("FOR", "LOCK") and _locks(draft) == facts.locks:
            continue  # each shard locks its own rows
        return _WORDS[word]
    called = draft.functions
    aggregates = sorted(called & AGGREGATES)
    if aggregates:
        return f"{aggregates[0].upper()}()"
    if UNKNOWN in called:
        return "a function that is not built in"
    odd = sorted(called & (LOCKS | SERVER | SESSION))
    if odd:
        return f"{odd[0].upper()}()"
    if "rand" in called and _seeded(draft):
        return "RAND with a seed"
    if draft.has_variables:
        return "a variable"
    if facts.set_operation or facts.derived:
        return "a subquery in FROM, a WITH query or a set operation"
    if len(groups) != 1 or groups[0].shard is not None:
        names = " and ".join(", ".join(group.tables) for group in groups)
        return f"a statement over tables whose keys are not joined ({names})"
    if facts.obstacle:
        return facts.obstacle
    if any(s.kind in (SourceKind.SYSTEM, SourceKind.DERIVED) for s in facts.sources):
        return "a system table"
    return ""


def _locks(draft: Draft) -> int:
    """How many locks there may be: each LOCK, and each FOR that is not that of USE INDEX FOR JOIN (…) nor of
    SUBSTRING(… FROM … FOR …)."""
    found = 0
    opened: list[str] = []  # for each parenthesis that is open, the word before it
    for i in range(len(draft.tokens)):
        match draft.word(i):
            case "(":
                opened.append(draft.word(i - 1))
            case ")" if opened:
                opened.pop()
            case "FOR":
                substring = bool(opened) and opened[-1] in ("SUBSTRING", "SUBSTR")
                found += not substring and draft.word(i - 1) not in ("INDEX", "KEY")
            case "LOCK":
                found += 1
    return found


def _seeded(draft: Draft) -> bool:
    return any(
        draft.word(i) == "RAND" and draft.word(i + 1) == "(" and draft.word(i + 2) != ")"
        for i in range(len(draft.tokens))
    )
