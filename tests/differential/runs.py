"""Running an episode on both sides, and telling agreement, clear refusal and mismatch apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from tests.differential.episodes import Episode, Step
from tests.differential.outcomes import Outcome, ask, difference
from tests.differential.schema import Table
from tests.differential.sides import Sides

_TRANSACTION = re.compile("BEGIN|TRANSACTION|autocommit", re.IGNORECASE)
EQUAL, REFUSED = "equal", "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one step went. `mismatch`: what differs, "" unless it is one; `details` shows both answers."""

    step: Step
    kind: str
    reason: str = ""
    mismatch: str = ""
    details: str = ""


@dataclass(slots=True)
class _Session:
    in_transaction: bool = False
    written: list[str] = field(default_factory=list)  # texts whose tables have not been compared yet
    refused: bool = False  # the last step was, or failed: of its conditions the proxy may keep only the error


def run(sides: Sides, episode: Episode) -> list[Verdict]:
    """Verdicts of the steps in order, up to the first mismatch. The tables have their base rows before and after."""
    session = _Session()
    verdicts: list[Verdict] = []
    texts = [step.sql for step in episode.steps if step.writes]
    tables = sides.mentioned(episode.database, [*texts, *(s.sql for s in episode.steps)] if texts else [])
    with sides.client(episode) as proxy, sides.oracle_client(episode) as oracle:
        for step in episode.steps:
            verdict = _step(sides, episode, session, step, proxy, oracle)
            if verdict is not None:
                verdicts.append(verdict)
                if verdict.mismatch:
                    break
        for client in (proxy, oracle):
            ask(client, Step("transaction", "ROLLBACK"))
    if session.written and not any(v.mismatch for v in verdicts):
        verdicts += _contents(sides, episode, session, episode.steps[-1])
    sides.reload(tables)
    return verdicts


def _step(sides: Sides, episode: Episode, session: _Session, step: Step, proxy, oracle) -> Verdict | None:  # type: ignore[no-untyped-def]
    if step.follows and session.refused:
        return None
    mine = ask(proxy, step)
    session.refused = any(one.error for one in mine)
    if mine[0].refused:
        # A read is asked of the lone server all the same: a refusal of what is an error anyway is not counted. Not in
        # transactions, which the read might begin.
        alone = step.label.startswith("select") and not any(_TRANSACTION.search(s.sql) for s in episode.steps)
        invalid = alone and ask(oracle, step)[0].error
        return Verdict(step, REFUSED, "" if invalid else mine[0].message)
    theirs = ask(oracle, replace(step, again=step.again and not mine[-1].refused))
    for i, (one, other) in enumerate(zip(mine, theirs, strict=False)):
        if one.refused:
            break
        found = difference(step, one, other, sides.charsets if i == 0 else None)
        if found:
            return _mismatch(step, found, one, other)
    status = theirs[-1].status
    if status >= 0:
        session.in_transaction = bool(status & 1)
    if step.writes or step.label == "transaction":
        session.written.append(step.sql)
    if session.written and not session.in_transaction:
        wrong = _contents(sides, episode, session, step)
        if wrong:
            return wrong[0]
    return Verdict(step, EQUAL)


def _contents(sides: Sides, episode: Episode, session: _Session, step: Step) -> list[Verdict]:
    """Compares the tables written since the last time."""
    tables: list[Table] = sides.mentioned(episode.database, session.written)
    session.written.clear()
    for table in tables:
        wrong = sides.difference(table)
        if wrong:
            return [Verdict(step, "mismatch", mismatch="stored rows", details=wrong)]
    return []


def _mismatch(step: Step, found: str, mine: Outcome, theirs: Outcome) -> Verdict:
    details = f"proxy:  {mine.shown()}\nserver: {theirs.shown()}"
    return Verdict(step, "mismatch", mismatch=found, details=details)
