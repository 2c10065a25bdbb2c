"""Texts made from a statement's own text, kept in plans: fixed bytes, and literals by their index.

A plan serves every statement with its digest, and these differ in their literals. So a plan keeps no text but a
*template*; rendered with the literals at hand it gives what a server gets. Pieces are cut at tokens of the original:
nothing is ever generated from a syntax tree. Comments between tokens are left out, optimizer hints are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardproxy.errors import UnsupportedError
from shardproxy.planner.draft import Draft
from shardproxy.sql.tokens import Token
from shardproxy.topology.moving import MovingKeys

_LONGEST_LABEL = 255  # bytes; MySQL cuts labels there, and aliases one byte later


@dataclass(frozen=True, slots=True)
class Label:
    """The label that a select item has by its own text: rendered as an alias, so that another text keeps it."""

    pieces: tuple[bytes | int, ...]

    def render(self, literals: Sequence[bytes], shift: int) -> bytes:
        """Raises UnsupportedError for a text of which it is not certain what the server makes of it."""
        text = b"".join(piece if isinstance(piece, bytes) else literals[piece + shift] for piece in self.pieces)
        if not text.isascii():
            try:
                certain = len(text) <= _LONGEST_LABEL and max(text.decode()) <= "\uffff"
            except UnicodeDecodeError:
                certain = False
            if not certain:
                raise UnsupportedError("a select item over scratch tables whose label cannot be kept: give it an alias")
        if b"\0" in text:
            raise UnsupportedError("a select item with a NUL in its text: give it an alias")
        return b" AS `" + text[:_LONGEST_LABEL].replace(b"`", b"``") + b"`"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A text for those shards that have rows which the statement must not see; nothing for all others.

    hidden: shard index → the keys of those rows. column: the key of a table of the statement, quoted, with its table;
    then the text is that it is none of these keys, between `before` and `after`. Without a column it is `before`.
    """

    hidden: tuple[tuple[int, tuple[MovingKeys, ...]], ...]
    before: bytes
    column: bytes = b""
    after: bytes = b""

    def on(self, shard: int) -> bool:
        """Whether there is a text for this shard."""
        return any(shard == one for one, _ in self.hidden)

    def render(self, shard: int) -> bytes:
        """The text for this shard.

        IS NOT TRUE: it cannot be looked up in an index, so it changes nothing about which conditions a server takes
        for a search by key (sql_safe_updates); and a NULL moves nowhere.
        """
        keys = next((keys for one, keys in self.hidden if one == shard), ())
        if not keys:
            return b""
        if not self.column:
            return self.before
        moving = b" OR ".join([one.condition_on(self.column) for one in keys])
        return b"%s(%s) IS NOT TRUE%s" % (self.before, moving, self.after)

    def shown(self) -> str:
        """For people: what stands there, whatever the keys are."""
        if not self.column:
            return f"⟨{self.before.decode()}⟩"
        column = self.column.decode("utf-8", "replace")
        return f"⟨{self.before.decode()}{column} is not hidden here{self.after.decode()}⟩"


Piece = bytes | int | Label | Unseen


@dataclass(frozen=True, slots=True)
class Rewritten:
    """text: for a server; parameters: for each ? that stands for one, the number of the client's parameter."""

    text: bytes
    parameters: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """pieces: bytes as they are, and indexes of literals of the statement."""

    pieces: tuple[Piece, ...] = ()

    def __add__(self, other: Template | bytes) -> Template:
        return Template(self.pieces + (other.pieces if isinstance(other, Template) else (other,)))

    def __radd__(self, other: bytes) -> Template:
        return Template((other, *self.pieces))

    def render(
        self, literals: Sequence[bytes], numbers: Sequence[int] = (), shift: int = 0, shard: int = -1
    ) -> Rewritten:
        """The text for these literals. numbers: for each literal its parameter number, else −1 (prepared only);
        shift: take literals so many further on; shard: whose text it is, where rows are hidden on some."""
        out: list[bytes] = []
        parameters: list[int] = []
        for piece in self.pieces:
            if isinstance(piece, bytes):
                out.append(piece)
                continue
            if isinstance(piece, Label):
                out.append(piece.render(literals, shift))
                continue
            if isinstance(piece, Unseen):
                out.append(piece.render(shard))
                continue
            out.append(literals[piece + shift])
            if numbers and numbers[piece + shift] >= 0:
                parameters.append(numbers[piece + shift])
        return Rewritten(b"".join(out), tuple(parameters))

    def differs_on(self, shard: int) -> bool:
        """Whether this shard's text is another one than those of shards on which nothing is hidden."""
        return any(isinstance(piece, Unseen) and piece.on(shard) for piece in self.pieces)

    def shown(self) -> str:
        """For people: literals as ?index."""
        return _shown(self.pieces)


def _shown(pieces: Sequence[Piece]) -> str:
    return "".join(
        p.decode("utf-8", "replace") if isinstance(p, bytes)
        else f"?{p}" if isinstance(p, int)
        else p.shown() if isinstance(p, Unseen)
        else f" AS `{_shown(p.pieces)}`"
        for p in pieces
    )  # fmt: skip


def template(draft: Draft, first: int, end: int) -> Template:
    """Tokens `first` to `end` (not included) of the draft."""
    return of_tokens(draft.sql, draft.tokens[first:end])


def of_tokens(sql: bytes, tokens: Sequence[Token], blanks: bool = False) -> Template:
    """These tokens, which stand one after the other in the text; with a blank where something stood between them.

    blanks: keep blanks and line ends as they were written.
    """
    pieces: list[Piece] = []
    fixed: list[bytes] = []
    before = -1
    for token in tokens:
        if before >= 0 and token.start > before:
            gap = sql[before : token.start]
            fixed.append(gap if blanks and not gap.strip() else _between(gap))
        before = token.end
        if token.literal >= 0:
            if fixed:
                pieces.append(b"".join(fixed))
                fixed = []
            pieces.append(token.literal)
        else:
            fixed.append(sql[token.start : token.end])
    if fixed:
        pieces.append(b"".join(fixed))
    return Template(tuple(pieces))


def _between(gap: bytes) -> bytes:
    start = gap.find(b"/*+")
    end = gap.find(b"*/", start) if start >= 0 else -1
    return b" " + gap[start : end + 2] + b" " if end >= 0 else b" "


def joined(templates: Sequence[Template], separator: bytes) -> Template:
    """The templates with a separator between each two."""
    pieces: list[Piece] = []
    for i, one in enumerate(templates):
        if i:
            pieces.append(separator)
        pieces.extend(one.pieces)
    return Template(tuple(pieces))
