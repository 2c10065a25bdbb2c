"""Accounts that were locked to shut their proxies out, and letting them in again.

Their names stand in the figures of the move for whose sake it was done. Whoever leads it lets them in; for those that
come back after its end there is `readmit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shardproxy.errors import StoreConflict
from shardproxy.reshard.eviction import Evictor, gone
from shardproxy.store.interface import Condition, MapStore, Put
from shardproxy.topology.barrier import Acknowledgement, Identity, not_passed, returned
from shardproxy.topology.map_document import MapDocument
from shardproxy.topology.stored import ACKNOWLEDGEMENTS, MOVES, PROXIES
from shardproxy.topology.workflow import Figure, Workflow, note

_NAME = "locked"


def locked_accounts(workflow: Workflow) -> frozenset[str]:
    """Accounts that were locked for a move's sake and have not been let in again."""
    return frozenset(filter(None, str(workflow.figures.get(_NAME, "")).split(",")))


def with_locked(workflow: Workflow, accounts: Iterable[str]) -> dict[str, Figure]:
    """The move's figures with other locked accounts."""
    return {**workflow.figures, _NAME: ",".join(sorted(accounts))}


async def readmit(
    store: MapStore, evictor: Evictor, maps: Mapping[str, MapDocument], vouched: str = ""
) -> tuple[frozenset[str], frozenset[str]]:
    """Let in all locked accounts whose proxies have come back, and `vouched`, of which somebody knows that no process
    is left that was shut out. Accounts that were let in, and those that are still locked.

    Raises StoreError, SqlError, BackendError.
    """
    moves = {e.key: (Workflow.read(e.key, e.value), e.version) for e in (await store.list(MOVES)).entries}
    locked = frozenset(account for move, _ in moves.values() for account in locked_accounts(move))
    identities = [Identity.read(e.key, e.value) for e in (await store.list(PROXIES)).entries]
    answers = [Acknowledgement.read(e.key, e.value) for e in (await store.list(ACKNOWLEDGEMENTS)).entries]
    behind = {one for name, document in maps.items() for one in not_passed(name, document.epoch, identities, answers)}
    back = returned(locked, identities, behind, gone) | (locked & {vouched})
    for account in sorted(back):
        await evictor.readmit(account)
    for key, (workflow, version) in moves.items():
        while locked_accounts(workflow) & back:
            after = note(workflow, figures=with_locked(workflow, locked_accounts(workflow) - back))
            if after.ended and not locked_accounts(after):
                after = note(after, problem="")
            try:
                await store.commit([Condition(key, version)], [Put(key, after.document())])
                break
            except StoreConflict:
                entry = await store.get(key)
                if entry is None:
                    break
                workflow, version = Workflow.read(entry.key, entry.value), entry.version
    return back, locked - back
