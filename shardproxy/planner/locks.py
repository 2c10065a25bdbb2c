"""Locking clauses of a SELECT, found in its tokens: FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE, and what may follow.

A clause locks the rows of the tables that stand in its own FROM, also within parentheses of joins; not those of
subqueries, WITH queries or derived tables. Such a read sees the newest committed rows, whatever snapshot its
transaction has; so which tables it locks is also a question of what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardproxy.planner.draft import Draft, is_name

NOWAIT, SKIP, WAIT = "NOWAIT", "SKIP LOCKED", "WAIT"


@dataclass(frozen=True, slots=True)
class Lock:
    """One clause: tokens `first` to `end`. update: exclusive, else shared; of: names of tables, () for all of its FROM;
    wait: what is done about rows that others have locked, "" for waiting; `how_first`: where that begins."""

    first: int
    end: int
    update: bool
    of: tuple[str, ...] = ()
    wait: str = ""
    how_first: int = 0


def read_lock(draft: Draft, at: int) -> Lock | None:
    """The clause that begins at a token; None when none does."""
    first = at
    update = False
    of: list[str] = []
    if draft.word(at) == "LOCK" and [draft.word(at + i) for i in (1, 2, 3)] == ["IN", "SHARE", "MODE"]:
        at += 4
    elif draft.word(at) == "FOR" and draft.word(at + 1) in ("UPDATE", "SHARE"):
        update = draft.word(at + 1) == "UPDATE"
        at += 2
        if draft.word(at) == "OF":
            at += 1
            while at < len(draft.tokens) and is_name(draft.tokens[at]):
                of.append(draft.tokens[at].text)
                at += 1
                if draft.word(at) != ",":
                    break
                at += 1
    else:
        return None
    how = at
    wait = ""
    if draft.word(at) == "NOWAIT":
        wait, at = NOWAIT, at + 1
    elif draft.word(at) == "SKIP" and draft.word(at + 1) == "LOCKED":
        wait, at = SKIP, at + 2
    elif draft.word(at) == "WAIT":
        wait, at = WAIT, at + 2
    return Lock(first, at, update, tuple(of), wait, how)


def outer_locks(draft: Draft) -> int:
    """Index of the first locking clause when nothing but such clauses follows; else the number of tokens."""
    depth = 0
    for i, token in enumerate(draft.tokens):
        word = token.upper
        depth += (word == "(") - (word == ")")
        if depth == 0 and word in ("FOR", "LOCK"):
            at = i
            while (lock := read_lock(draft, at)) is not None:
                at = lock.end
            if at == len(draft.tokens) and at > i:
                return i
    return len(draft.tokens)
