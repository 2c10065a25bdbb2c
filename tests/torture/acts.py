"""Moves under bad luck: each act begins one, leads it on through crashes, and leaves it ended.

What goes wrong where is dealt before the act begins (deal.py): places at which the orchestrator is killed (before and
after steps that it stores), and places at which a nemesis strikes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from tests.proxy import eventually
from tests.torture.deal import THAWED, Luck
from tests.torture.kinds import Kind, some_ranges
from tests.torture.moving_scene import Led, Scene
from tests.torture.nemeses import Nemeses
from tests.torture.traffic import Traffic

_TRIES = 25
_HOLDING = ("run", "resume", "switch", "reverse")  # commands that let writes wait
_LONGEST = 600.0  # seconds until a move must have ended, on a machine that runs other tests too


class Stage:
    """Where acts are played. kind: of moves. log: what happened, for whoever reads a failure; `note` adds to it."""

    def __init__(self, scene: Scene, traffic: Traffic, nemeses: Nemeses, dice: random.Random) -> None:
        self.scene, self.traffic, self.nemeses, self.dice = scene, traffic, nemeses, dice
        self.kind: Kind = some_ranges
        self._hold: list[str] = []
        self._log: list[str] = []
        self._began = time.monotonic()

    def note(self, text: str) -> None:
        self._log.append(f"{time.monotonic() - self._began:6.1f} s  {text}")

    @property
    def log(self) -> str:
        return "\n".join(self._log)

    # ── the moves ──

    def choose(self) -> list[str]:
        """Goals of a new move. The traffic favours its keys, nemeses its shards."""
        goals = self.kind(self.scene.document(), self.dice)
        self.note(f"  {' '.join(goals.words)}")
        self.nemeses.concerned = goals.concerned
        self.traffic.favoured = goals.moving
        self._hold = [f"--hold={goals.hold:g}"]
        return goals.words

    def there(self, luck: Luck) -> None:
        """A move to its end."""
        goals = self.choose()
        self.lead(["run", "main", *goals, "--auto", "--measure-time=0"], ["resume", "--auto"], {"done"}, luck)
        self.ended(luck)

    def cancelled(self, luck: Luck, at: str) -> None:
        """A move that is given up at a place before the switch, at which the orchestrator is killed."""
        goals = self.choose()
        assert at in luck.kills
        words = ["run", "main", *goals, "--auto", "--measure-time=0"]
        self.lead(words, ["resume", "--auto"], {"done"}, luck, enough=lambda place: place == at)
        self.lead(["cancel"], ["cancel"], {"cancelled"}, luck)
        self.ended(luck)

    def back(self, luck: Luck, way_back: Luck) -> None:
        """A move that switches, and is taken back. The first orchestrator is not ended: another takes the lead."""
        goals = self.choose()
        first = self.scene.shardctl("run", "main", *goals, "--measure-time=0")
        for place in first.steps():
            first.go()
            if place == "after prepared next":
                break
        ident, _ = self._newest()
        self.lead(["switch"], ["switch"], {"open"}, luck)
        first.close()
        assert first.wait() == 1, first.said
        self.note(f"  the first orchestrator of move {ident} has given up")
        self.lead(["reverse"], ["reverse"], {"reverse_done"}, way_back)
        self.ended(luck, way_back)

    def stopped(self, harm: Callable[[Sequence[int]], None], mend: Callable[[Sequence[int]], None]) -> None:
        """A move whose sources get a harm that it cannot survive: it stops, says so, and can be given up."""
        goals = self.choose()
        luck = Luck(["before copying next"])
        words = ["run", "main", *goals, "--auto", "--measure-time=0"]
        self.lead(words, ["resume", "--auto"], {"done"}, luck, enough=lambda _: True)
        move = self.scene.move()
        assert move is not None
        sources = sorted({int(stream.source.removeprefix("shard")) - 1 for stream in move.plan.streams})
        harm(sources)
        led, _ = self._run(["resume", str(move.id), "--auto"], luck)
        assert led.wait() == 1, led.said
        self.note(f"  it stops: {led.said.strip().splitlines()[-1]}")
        self.lead(["cancel"], ["cancel"], {"cancelled"}, luck)
        mend(sources)
        self.ended(luck)

    def ended(self, *lucks: Luck) -> None:
        """All that was dealt has come. Proxies that were shut out are let in: who led the move may have been killed
        before they were back."""
        left = [place for luck in lucks for place in luck.left]
        assert not left, f"what never came: {left}"
        self.nemeses.calm()
        eventually(self._let_in, "the proxies that were shut out are let in", 60)

    def _let_in(self) -> bool:
        if not self.scene.locked():
            return True
        led = self.scene.shardctl("readmit")
        led.close()
        return led.wait() == 0

    # ── leading ──

    def lead(
        self, first: Sequence[str], again: Sequence[str], ends: set[str], luck: Luck,
        enough: Callable[[str], bool] = lambda _: False,
    ) -> str:  # fmt: skip
        """Run a command, and another after each crash, until the move is at one of these stages, or `enough` says so of
        the place at which it was killed. The stage."""
        before = self._newest()
        words = list(first)
        deadline = time.monotonic() + _LONGEST
        for _ in range(_TRIES):
            led, at = self._run(words, luck)
            status = led.wait()
            ident, stage = self._newest()
            self.note(f"  {' '.join(led.words)}: {f'killed {at}' if led.killed else status}, move {ident} {stage}")
            if led.killed and enough(at):
                return stage
            if stage in ends and (words[0] != "run" or (ident, stage) != before):
                return stage
            self._store_held(led, luck)
            assert led.killed or self.nemeses.disturbed(led.began), f"nothing was in its way; {led.said}"
            assert time.monotonic() < deadline, f"the move does not end; {led.said}"
            if words[0] == "run" and ident == before[0]:
                continue  # killed before it began anything
            words = [*again[:1], str(ident), *again[1:]]
        raise AssertionError(f"not after {_TRIES} tries; {led.said}")

    def _store_held(self, led: Led, luck: Luck) -> None:
        """A proxy that was stopped while it wrote into the embedded store keeps all others from it: the operator is
        told so, and lets it go on. It is stopped again the next time."""
        kind = self.nemeses.freezing
        if kind and "which is stopped" in led.said:
            self.note(f"  {self.nemeses.strike(THAWED)} goes on: it has kept the store locked")
            luck.strike("before closing next", kind)

    def _run(self, words: Sequence[str], luck: Luck) -> tuple[Led, str]:
        """A command until it ends or is killed at a place; the place."""
        if words[0] != "run" and len(words) == 1:
            words = [*words, str(self._newest()[0])]
        led = self.scene.shardctl(*words, *(self._hold if words[0] in _HOLDING else ()))
        for place in led.steps():
            for kind in luck.strikes.pop(place, ()):
                self.note(f"  {kind}, {place}: {self.nemeses.strike(kind)}")
            if place in luck.kills:
                luck.kills.remove(place)
                led.kill()
                return led, place
            led.go()
        return led, ""

    def _newest(self) -> tuple[int, str]:
        move = self.scene.move()
        return (0, "") if move is None else (move.id, move.stage.value)
