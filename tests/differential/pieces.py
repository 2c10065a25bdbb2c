"""Statements as trees of text whose parts know what simpler text could stand in their place.

A generator joins strings and pieces; a shrinker tries the simpler forms one by one and keeps what still fails. Bound
parameters are leaves, so that dropping a clause drops its parameters too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Union

from shardproxy.protocol.mysql.values import Value

Part = Union[str, "Piece", "Bound"]


@dataclass(frozen=True, eq=False, slots=True)
class Bound:
    """A ? with its value: `kind` is a protocol field type; `plain` the literal that says about the same."""

    kind: int
    unsigned: bool
    value: Value
    plain: str


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """simpler: what could stand instead, simplest first. mark: "order" for an ORDER BY that leaves no ties, "limit"
    for a LIMIT: without an order its rows are anybody's choice. least: −1 unless the parts are a list, with separators
    at every second place, of which so many must stay."""

    parts: tuple[Part, ...]
    simpler: tuple[Part, ...] = ()
    mark: str = ""
    least: int = -1


def piece(*parts: Part, simpler: Sequence[Part] = (), mark: str = "") -> Piece:
    """A piece of these parts."""
    return Piece(parts, tuple(simpler), mark)


def optional(*parts: Part, mark: str = "") -> Piece:
    """A piece that may be left out."""
    return Piece(parts, ("",), mark)


def listed(parts: Sequence[Part], separator: str = ", ", least: int = 1) -> Piece:
    """Parts with separators. Simpler: without one of them, as long as `least` are left."""
    joined: list[Part] = []
    for i, part in enumerate(parts):
        joined += [separator, part] if i else [part]
    return Piece(tuple(joined), least=least)


def render(part: Part) -> tuple[str, list[Bound]]:
    """The text, and its parameters in order."""
    texts: list[str] = []
    bound: list[Bound] = []
    for leaf in _leaves(part):
        if isinstance(leaf, str):
            texts.append(leaf)
        else:
            texts.append("?")
            bound.append(leaf)
    return "".join(texts), bound


def _leaves(part: Part) -> Iterator[str | Bound]:
    if isinstance(part, Piece):
        for inner in part.parts:
            yield from _leaves(inner)
    else:
        yield part


def marks(part: Part) -> set[str]:
    """Marks of all pieces in the tree."""
    if not isinstance(part, Piece):
        return set()
    return {part.mark}.union(*map(marks, part.parts)) - {""}


def simplified(part: Part) -> Iterator[Part]:
    """All trees that are one simplification away, the outermost parts first."""
    if isinstance(part, Bound):
        yield part.plain
        return
    if isinstance(part, str):
        return
    yield from part.simpler
    if part.least >= 0:
        yield from _shorter(part)
    for i, inner in enumerate(part.parts):
        for other in simplified(inner):
            yield Piece((*part.parts[:i], other, *part.parts[i + 1 :]), part.simpler, part.mark, part.least)


def _shorter(part: Piece) -> Iterator[Part]:
    """Lists with half of the items, and with one less."""
    items, separator = part.parts[::2], str(part.parts[1]) if len(part.parts) > 1 else ""
    if len(items) > 3 and len(items) // 2 >= part.least:
        yield listed(items[: len(items) // 2], separator, part.least)
        yield listed(items[len(items) // 2 :], separator, part.least)
    if len(items) > part.least:
        for i in range(len(items)):
            yield listed([*items[:i], *items[i + 1 :]], separator, part.least)


def weight(part: Part) -> tuple[int, int]:
    """What simplification must make smaller: parameters, then characters."""
    text, bound = render(part)
    return len(bound), len(text)
