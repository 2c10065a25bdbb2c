"""Weights of ASCII texts without asking a server for each.

In most collations the weights of a text are those of its characters, one after the other, and ASCII characters do not
become others beside each other (as `ch` does in Spanish). A server is asked once for the characters and for a text in
which each stands beside each: where the parts make up the whole, they do so in every text.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardproxy.planner.lookup_plan import Part
from shardproxy.planner.lookup_text import weight_of

CHARACTERS = bytes(range(0x20, 0x7F))


def each_beside_each() -> bytes:
    """A text that has every pair of characters somewhere."""
    out = bytearray()
    for i, one in enumerate(CHARACTERS):
        out += bytes((one, one))
        for other in CHARACTERS[i + 1 :]:
            out += bytes((other, one))
    return bytes(out)


def questions(part: Part) -> list[bytes]:
    """Queries for the weights of each character, and of all pairs."""
    return [*(weight_of(part, bytes((c,))) for c in CHARACTERS), weight_of(part, each_beside_each())]


def weights(answers: Sequence[bytes]) -> dict[int, bytes] | None:
    """Character → weights, from the answers to `questions`; None where texts are more than their characters."""
    *singles, pairs = answers
    found = dict(zip(CHARACTERS, singles, strict=True))
    return found if all(singles) and pairs == text_weights(found, each_beside_each()) else None


def text_weights(characters: dict[int, bytes], text: bytes) -> bytes | None:
    """The weights of a text; None when it has other characters."""
    try:
        return b"".join([characters[c] for c in text])
    except KeyError:
        return None
