"""Who has acknowledged which map (R3), and who is shut out instead (R4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Annotated

from pydantic import Field

from shardproxy.topology.stored import Stored


class Standing(Enum):
    """How far an identity is trusted to answer."""

    ACTIVE = "active"
    EVICTING = "evicting"  # marked; the servers may still have connections of it
    EVICTED = "evicted"  # every server refuses it, and has no connection of it any more


class Identity(Stored):
    """A run of a proxy. Every start has a new one.

    It is stored *before* the proxy reads the maps, and the proxy serves only after it has acknowledged what it read.
    So whoever writes a map and lists the identities afterwards finds everybody who may have read an older map.

    since: seconds since 1970. place: host and process, for people. account: the account with which its connections
    log in at the servers, so that they can be refused and ended.
    """

    id: Annotated[str, Field(min_length=1)]
    since: float
    place: str = ""
    account: str = ""
    standing: Standing = Standing.ACTIVE


class Acknowledgement(Stored):
    """keyspace → epoch: nothing that was planned under an older map is in flight on this proxy (R3)."""

    identity: Annotated[str, Field(min_length=1)]
    epochs: dict[str, int] = Field(default_factory=dict)


def not_passed(
    keyspace: str, epoch: int, identities: Iterable[Identity], acknowledgements: Iterable[Acknowledgement]
) -> tuple[str, ...]:
    """Identities that the barrier of a map still waits for, in the order given; none: it has passed.

    The identities must have been listed after the map was written (see Identity).
    """
    acknowledged = {a.identity: a.epochs.get(keyspace, 0) for a in acknowledgements}
    return tuple(
        identity.id
        for identity in identities
        if identity.standing is not Standing.EVICTED and acknowledged.get(identity.id, 0) < epoch
    )


def returned(
    accounts: Iterable[str], identities: Iterable[Identity], waited_for: Iterable[str], gone: Callable[[str], bool]
) -> frozenset[str]:
    """Those of some locked accounts that may be unlocked: a proxy of theirs serves by the newest map, and none that was
    shut out is left.

    A proxy that comes back takes its earlier identities away. As long as one is there its process may be stopped, and
    would write by an old map if its account were let in for another's sake. waited_for: identities without an
    acknowledgement of the newest map. gone: whether the process of a `place` has certainly ended.
    """
    left = set(waited_for)
    found = []
    for account in accounts:
        mine = [one for one in identities if one.account == account and not gone(one.place)]
        if mine and all(one.standing is Standing.ACTIVE and one.id not in left for one in mine):
            found.append(account)
    return frozenset(found)
