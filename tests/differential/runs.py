"""Running an episode on both sides, and telling agreement, clear refusal and mismatch apart."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.differential.episodes import COUNT, Episode, Step
from tests.differential.outcomes import Outcome, ask, ask_both, difference, once_each, without_duplicates
from tests.differential.schema import COUNTING, Table
from tests.differential.sides import Sides
from tests.wire import RawClient

# equal: the same answer. failed: the same error of the lone server. refused: the lone server would have answered.
# invalid: the proxy refuses what the lone server does not take either. mismatch: anything else.
EQUAL, FAILED, REFUSED, INVALID, MISMATCH = "equal", "failed", "refused", "invalid", "mismatch"
KINDS = (EQUAL, FAILED, REFUSED, INVALID, MISMATCH)

_INSERTS = ("insert", "replace")
_COUNTED = re.compile(r"\b(" + "|".join(sorted({t.name for t in COUNTING})) + r")\b", re.IGNORECASE)
_COUNTED_SHARDED = re.compile(
    r"\b(" + "|".join(sorted({t.name for t in COUNTING if t.kind == "sharded"})) + r")\b", re.IGNORECASE
)
_TRANSACTION = re.compile(r"BEGIN|TRANSACTION|autocommit", re.IGNORECASE)
_LAST_ID = re.compile(r"last_insert_id|@@identity", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one step went. `mismatch`: what differs, "" unless it is one; `details` shows both answers. `rung`: of the
    ladder of plans, "" when it was not asked."""

    step: Step
    kind: str
    reason: str = ""
    mismatch: str = ""
    details: str = ""
    rung: str = ""


@dataclass(slots=True)
class _Session:
    transactional: bool = False  # some step begins, or may begin, a transaction
    in_transaction: bool = False
    written: list[str] = field(default_factory=list)  # texts whose tables have not been compared yet
    asked: list[str] = field(default_factory=list)  # texts that may have changed anything
    state: list[Step] = field(default_factory=list)  # what a second session must say to be in the same state
    changed: set[Table] = field(default_factory=set)  # tables whose rows may not be the base rows any more
    failed_outside: bool = False  # with autocommit off the proxy may have begun a transaction for what then failed
    changes_rows: bool = False  # the last step that is not about the session was an UPDATE or DELETE
    counted: bool = False  # an AUTO_INCREMENT column of a sharded table got a value
    refused: bool = False  # the last step was, or failed: of its conditions the proxy may keep only the error


_MIXED_GROUPS = 1140  # Mixing of GROUP columns with no GROUP columns
Rung = Callable[[Episode, Step], str]


def run(sides: Sides, episode: Episode, rung: Rung | None = None) -> list[Verdict]:
    """Verdicts of the steps in order, up to the first mismatch. The tables have their base rows before and after.

    rung: says on which rung of the ladder a step's plan is, for the score.
    """
    session = _Session(any(s.label == "transaction" or _TRANSACTION.search(s.sql) for s in episode.steps))
    verdicts: list[Verdict] = []
    with sides.client(episode) as proxy, sides.oracle_client(episode) as oracle, _Judge(sides, episode) as judge:
        for step in episode.steps:
            verdict = _step(sides, episode, session, step, proxy, oracle, judge)
            if verdict is not None:
                if rung is not None and verdict.kind == EQUAL:
                    verdict = replace(verdict, rung=rung(episode, step))
                verdicts.append(verdict)
                if verdict.mismatch:
                    break
        if session.asked:
            for client in (proxy, oracle):
                ask(client, Step("transaction", "ROLLBACK"))
    if any(v.mismatch for v in verdicts):
        session.changed.update(sides.mentioned(episode.database, _used(session, session.asked)))
    else:
        verdicts += _contents(sides, episode, session, episode.steps[-1])
    sides.reload(session.changed)
    return verdicts


def _step(
    sides: Sides,
    episode: Episode,
    session: _Session,
    step: Step,
    proxy: RawClient,
    oracle: RawClient,
    judge: _Judge,
) -> Verdict | None:
    if (step.follows and session.refused) or (session.counted and _depends_on_counted(step)):
        return None
    if step.writes or step.label == "transaction":
        session.asked.append(step.sql)
    # Outside transactions a read leaves nothing behind: the lone server is asked also what the proxy refuses.
    alone = step.label.startswith("select") and not session.transactional
    if alone and not step.prepared:
        mine, theirs = ask_both(proxy, oracle, step)
    else:
        mine, theirs = ask(proxy, step), []
    session.refused = any(one.error for one in mine)
    if mine[0].refused:
        if alone:
            valid = not (theirs or ask(oracle, replace(step, again=False)))[0].error
        else:
            valid = session.in_transaction or judge.accepts(session.state, step)
        return Verdict(step, REFUSED if valid else INVALID, mine[0].message)
    theirs = theirs or ask(oracle, replace(step, again=step.again and not mine[-1].refused))
    returning = not step.label.startswith("insert select") and "RETURNING" in step.sql.upper()
    if step.label.startswith(_INSERTS) and _COUNTED_SHARDED.search(step.sql) and (theirs[0].insert_id or returning):
        session.counted = True
        step = replace(step, compare=COUNT) if returning else step
    for i, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one.refused:
            break
        if session.failed_outside and one.status > 0 and other.status >= 0 and not other.status & 1:
            one = replace(one, status=one.status & ~1)
        if i and other.error == _MIXED_GROUPS and not theirs[0].error:
            break  # MariaDB takes it once and refuses it when it is executed again
        if episode.found_rows and "duplicate" in step.label:
            one, other = without_duplicates(one), without_duplicates(other)
        if step.label == "session" and session.changes_rows and not one.error and not other.error:
            one, other = once_each(one), once_each(other)
        found = difference(step, one, other, sides.charsets if i == 0 else None, session.counted)
        if found:
            return _mismatch(step, found, one, other)
    _follow(session, step, theirs[-1])
    if session.written and not session.in_transaction:
        wrong = _contents(sides, episode, session, step)
        if wrong:
            return wrong[0]
    return Verdict(step, FAILED if theirs[0].error else EQUAL)


def _follow(session: _Session, step: Step, answer: Outcome) -> None:
    """Takes note of what a step that both sides ran has done to the session."""
    if step.label != "session":
        session.changes_rows = step.label.startswith(("update", "delete"))
    if answer.error and not session.in_transaction:
        session.failed_outside = True
    elif answer.status >= 0 and (answer.status & 1 or step.sql.upper().startswith(("COMMIT", "ROLLBACK"))):
        session.failed_outside = False
    if answer.status >= 0:
        session.in_transaction = bool(answer.status & 1)
    if step.label in ("session", "reset") and not answer.error:
        session.state.append(step)
    if step.writes or step.label == "transaction":
        session.written.append(step.sql)


def _depends_on_counted(step: Step) -> bool:
    """Whether an answer may show, or rest on, numbers that the shards count otherwise than one server."""
    if _LAST_ID.search(step.sql):
        return True
    if not _COUNTED_SHARDED.search(step.sql):
        return False
    return not step.label.startswith(_INSERTS) or "select" in step.label


class _Judge:
    """A further session on the lone server: would it have taken what the proxy refused? Nothing that it does stays."""

    def __init__(self, sides: Sides, episode: Episode) -> None:
        self.sides = sides
        self.episode = episode
        self.client: RawClient | None = None
        self.said = 0

    def __enter__(self) -> _Judge:
        return self

    def __exit__(self, *_: object) -> None:
        if self.client is not None:
            self.client.close()

    def accepts(self, state: list[Step], step: Step) -> bool:
        """Whether the server answers the step without an error. What would leave traces is taken as accepted."""
        if step.writes and step.label.startswith(_INSERTS) and _COUNTED.search(step.sql):
            return True
        if step.sql.upper().startswith("TRUNCATE"):
            return True  # no ROLLBACK would bring the rows back
        if self.client is None:
            self.client = self.sides.oracle_client(self.episode)
        for before in state[self.said :]:
            ask(self.client, before)
        self.said = len(state)
        if step.writes or "lock" in step.label:
            ask(self.client, Step("transaction", "BEGIN"))
        answer = ask(self.client, replace(step, again=False))[0]
        ask(self.client, Step("transaction", "ROLLBACK"))
        return not answer.error


def _used(session: _Session, texts: list[str]) -> list[str]:
    """These texts and those that say which database they are about."""
    return [*texts, *(s.sql for s in session.state if s.sql.startswith("USE"))] if texts else []


def _contents(sides: Sides, episode: Episode, session: _Session, step: Step) -> list[Verdict]:
    """Compares the tables written since the last time."""
    tables = sides.mentioned(episode.database, _used(session, session.written))
    session.written.clear()
    if not tables:
        return []
    wrong, changed = sides.differences(tables, session.counted)
    session.changed.update(changed, (table for table in tables if table.counting))
    return [Verdict(step, MISMATCH, mismatch="stored rows", details=wrong)] if wrong else []


def _mismatch(step: Step, found: str, mine: Outcome, theirs: Outcome) -> Verdict:
    details = f"proxy:  {mine.shown()}\nserver: {theirs.shown()}"
    return Verdict(step, MISMATCH, mismatch=found, details=details)
