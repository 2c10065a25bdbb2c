"""Barriers: who is still waited for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.topology.barrier import Acknowledgement, Identity, Standing, not_passed, returned
from tests.unit.topology import worlds


def identity(ident: str, standing: Standing = Standing.ACTIVE) -> Identity:
    return Identity(id=ident, since=1.0, standing=standing)


def test_a_barrier_waits_for_everybody_who_has_not_acknowledged_and_is_not_evicted() -> None:
    identities = [
        identity("newer"),
        identity("same"),
        identity("older"),
        identity("silent"),
        identity("elsewhere"),
        identity("evicting", Standing.EVICTING),
        identity("evicted", Standing.EVICTED),
    ]
    acknowledgements = [
        Acknowledgement(identity="newer", epochs={"main": 8}),
        Acknowledgement(identity="same", epochs={"main": 7, "other": 1}),
        Acknowledgement(identity="older", epochs={"main": 6}),
        Acknowledgement(identity="elsewhere", epochs={"other": 9}),
        Acknowledgement(identity="gone", epochs={"main": 1}),
    ]
    assert not_passed("main", 7, identities, acknowledgements) == ("older", "silent", "elsewhere", "evicting")
    assert not_passed("main", 6, identities[:3], acknowledgements) == ()
    assert not_passed("main", 7, [], []) == ()


@given(st.lists(worlds.identities, max_size=5), st.lists(worlds.acknowledgements, max_size=5), st.integers(1, 9))
def test_a_mark_or_a_silence_never_passes_a_barrier(
    identities: list[Identity], acknowledgements: list[Acknowledgement], epoch: int
) -> None:
    waiting = not_passed("main", epoch, identities, acknowledgements)
    for one in identities:
        answered = [a.epochs.get("main", 0) for a in acknowledgements if a.identity == one.id]
        if one.standing is not Standing.EVICTED and (not answered or max(answered) < epoch):
            assert one.id in waiting


def test_an_account_is_let_in_when_nobody_who_was_shut_out_is_left() -> None:
    def one(account: str, ident: str, standing: Standing = Standing.ACTIVE, place: str = "") -> Identity:
        return Identity(id=ident, since=1.0, standing=standing, account=account, place=place)

    identities = [
        one("back", "1"),
        one("away", "2", Standing.EVICTED),
        one("replaced", "3", Standing.EVICTED),  # it may be stopped only: its map is old
        one("replaced", "4"),
        one("started again", "5", Standing.EVICTED, "gone"),
        one("started again", "6"),
        one("behind", "7"),
        one("other", "8"),
    ]
    accounts = ["back", "away", "replaced", "started again", "behind", "unknown"]
    assert returned(accounts, identities, ["7"], lambda place: place == "gone") == {"back", "started again"}
