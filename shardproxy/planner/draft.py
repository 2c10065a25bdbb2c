"""A statement on its way through the passes: what is known of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shardproxy.errors import UnsupportedError
from shardproxy.planner.context import PlanContext
from shardproxy.planner.plan import InsertId, Opcode, PinReason, Plan, Rung, StatementKind, Value
from shardproxy.sql.tokens import Token, TokenKind


@dataclass(slots=True)
class Draft:
    """sql: the client's text, or (`expanded`) that text with views' definitions put in;
    tokens: without comments and without the semicolons at the end; functions: names called, lower case;
    positions: literal index → index in `tokens`; table_hints: how a new table is spread ("key", "reference", "single",
    "keyspace" → value); cache_ttl: milliseconds that the hint cache asks for, None without it."""

    sql: bytes
    context: PlanContext
    digest_text: str
    tokens: tuple[Token, ...] = ()
    comments: tuple[str, ...] = ()
    kind: StatementKind = StatementKind.OTHER
    primary: bool = False
    snapshot: bool = False
    shard_hint: str | None = None
    cache_ttl: int | None = None
    table_hints: dict[str, str] = field(default_factory=dict)
    pins: dict[PinReason, None] = field(default_factory=dict)
    carries_insert_id: bool = False
    found_rows: bool = False
    assigns: tuple[str, ...] = ()
    functions: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    positions: dict[int, int] = field(default_factory=dict)
    expanded: bool = False

    def word(self, index: int) -> str:
        """The keyword at an index of `tokens`, upper case; a sign as it is; "" for anything else and past the end."""
        return self.tokens[index].upper if 0 <= index < len(self.tokens) else ""

    def has(self, *words: str) -> bool:
        """Whether any of the words stands anywhere as an unquoted word."""
        return not self.words.isdisjoint(words)

    @property
    def has_variables(self) -> bool:
        """Whether it reads a system variable, or assigns a user variable: several servers may not do that together."""
        if self.assigns or PinReason.USER_VARIABLE in self.pins:
            return True
        return any(t.kind is TokenKind.SYSTEM_VARIABLE for t in self.tokens)

    def starts(self, *words: str) -> bool:
        """Whether the statement begins with these words."""
        return all(self.word(i) == word for i, word in enumerate(words))

    def use(self, tokens: tuple[Token, ...]) -> None:
        """Go on with these tokens."""
        self.tokens = tokens
        self.words = frozenset(t.upper for t in tokens if t.kind is TokenKind.WORD)
        self.positions = {t.literal: i for i, t in enumerate(tokens) if t.literal >= 0}

    def cut(self, start: int) -> Draft:
        """The same statement without its first tokens."""
        rest = replace(self)
        rest.use(self.tokens[start:])
        return rest

    def plan(self, opcode: Opcode, reason: str, rung: Rung = Rung.ONE_SHARD, **more: Any) -> Plan:
        """A plan with what the passes found out about every kind of statement."""
        fields: dict[str, Any] = {
            "digest_text": self.digest_text,
            "pins": tuple(self.pins),
            "carries_insert_id": self.carries_insert_id,
            "primary": self.primary,
            "snapshot": self.snapshot,
            "shard_hint": self.shard_hint,
        }
        if self.found_rows or self.assigns:
            fields.update(found_rows=self.found_rows, assigns=self.assigns, insert_id=InsertId.ASKED)
        fields.update(more)
        return Plan(self.kind, opcode, rung, reason, **fields)


def is_name(token: Token) -> bool:
    """An identifier, quoted or not (a keyword too: the caller knows from the place)."""
    return token.kind in (TokenKind.WORD, TokenKind.NAME)


def literal_value(tokens: tuple[Token, ...]) -> Value | None:
    """The value when the tokens are one literal of the list, a minus before it at most."""
    negative = len(tokens) == 2 and tokens[0].upper == "-"
    if len(tokens) == 1 or negative:
        last = tokens[-1]
        if last.literal >= 0:
            return Value(last.literal, negative)
    return None


def literal_list(tokens: Sequence[Token], opening: int) -> tuple[list[Value], int]:
    """The values of `( literal, NULL, -literal … )` and the index behind it; no values when it holds anything else."""
    values: list[Value] = []
    at = opening + 1
    while at + 1 < len(tokens):
        negative = tokens[at].upper == "-"
        token = tokens[at + negative]
        if token.literal >= 0:
            values.append(Value(token.literal, negative))
        elif negative or token.upper != "NULL":
            break
        at += 1 + negative
        if at < len(tokens) and tokens[at].upper == ")":
            return values, at + 1
        if at >= len(tokens) or tokens[at].upper != ",":
            break
        at += 1
    return [], at


def refuse(message: str, code: int = 9100) -> UnsupportedError:
    """The error of a pass that finds that the statement cannot be answered exactly."""
    return UnsupportedError(message, code)
