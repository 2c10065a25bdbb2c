"""Weights put together from those of characters."""

from __future__ import annotations

from shardproxy.planner.lookup_ascii import CHARACTERS, each_beside_each, questions, text_weights, weights
from shardproxy.planner.lookup_plan import Part, PartKind

PART = Part("c", PartKind.TEXT, "utf8mb4", "utf8mb4_general_ci")


def folded(text: bytes) -> bytes:
    return b"".join(b"\0" + bytes((c,)) for c in text.upper())


def contracted(text: bytes) -> bytes:
    """ch is one letter."""
    return folded(text.replace(b"ch", b"~").replace(b"CH", b"~"))


def answers(of: object) -> list[bytes]:
    assert callable(of)
    return [*(of(bytes((c,))) for c in CHARACTERS), of(each_beside_each())]


def test_each_stands_beside_each() -> None:
    text = each_beside_each()
    for one in CHARACTERS:
        for other in CHARACTERS:
            assert bytes((one, other)) in text


def test_texts_are_their_characters() -> None:
    found = weights(answers(folded))
    assert found is not None
    assert text_weights(found, b"Zoe@x.org ") == folded(b"zoe@X.org ")
    assert text_weights(found, b"") == b""
    assert text_weights(found, "Zoé".encode()) is None
    assert len(questions(PART)) == len(CHARACTERS) + 1


def test_where_letters_join_every_text_is_asked_for() -> None:
    assert weights(answers(contracted)) is None
    assert weights(answers(lambda text: folded(text) + b"\0\0" + text)) is None, "levels"
    assert weights(answers(lambda text: folded(text).replace(b"\0-", b""))) is None, "a character without weight"
