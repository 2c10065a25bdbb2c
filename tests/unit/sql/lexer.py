"""A slow lexer for the tests, written state by state after MySQL's (sql/sql_lex.cc), with no regular expression.

It shares nothing with shardproxy.sql: the digest's property tests hold one against the other.
"""

from __future__ import annotations

from dataclasses import dataclass

DIGITS = frozenset(b"0123456789")
NAME = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_$") | frozenset(range(0x80, 0x100))
HEX = frozenset(b"0123456789abcdefABCDEF")
BLANK = frozenset(b" \t\n\v\f\r")
EXPONENT = frozenset(b"eE")
SIGNS = frozenset(b"+-")
PREFIXES = frozenset(b"xXbBnN")
QUOTE, DOUBLE, BACKTICK = 0x27, 0x22, 0x60


@dataclass(frozen=True)
class Piece:
    """kind: word, name (quoted), number, string, param, variable, comment, sign, broken. text: as written."""

    kind: str
    text: bytes


class Lexer:
    def __init__(self, sql: bytes, ansi_quotes: bool = False, backslash: bool = True) -> None:
        self.sql = sql
        self.ansi_quotes = ansi_quotes
        self.backslash = backslash
        self.at = 0

    def byte(self, offset: int = 0) -> int:
        place = self.at + offset
        return self.sql[place] if place < len(self.sql) else -1

    def pieces(self) -> list[Piece]:
        found: list[Piece] = []
        while self.at < len(self.sql):
            start = self.at
            if self.byte() in BLANK:
                self.at += 1
                continue
            after_dot = bool(found) and found[-1].text == b"." and self.dot_ended == start
            kind = self.word() if after_dot and self.byte() in NAME else self.token(found)
            if kind == "broken":
                found.append(Piece("broken", self.sql[start:]))
                return found
            found.append(Piece(kind, self.sql[start : self.at]))
            if found[-1].text == b".":
                self.dot_ended = self.at
            self.ended = self.at
        return found

    dot_ended = -1
    ended = -1

    def token(self, before: list[Piece]) -> str:
        c, following = self.byte(), self.byte(1)
        if c == QUOTE or (c == DOUBLE and not self.ansi_quotes):
            return self.string(c)
        if c in (BACKTICK, DOUBLE):
            return self.quoted_name(c)
        if c in PREFIXES and following == QUOTE:
            self.at += 1
            return self.string(QUOTE)
        if c in DIGITS:
            return self.number()
        if c in NAME:
            return self.word()
        if c == 0x2E and following in DIGITS:
            glued = bool(before) and before[-1].kind in ("word", "name") and self.ended == self.at
            if not glued:
                return self.real()
        if c == 0x40:
            return self.variable()
        if c == 0x23:
            return self.line_comment()
        if c == 0x2D and following == 0x2D and (self.byte(2) == -1 or self.byte(2) <= 0x20 or self.byte(2) == 0x7F):
            return self.line_comment()
        if c == 0x2F and following == 0x2A:
            end = self.sql.find(b"*/", self.at + 2)
            if end < 0:
                return "broken"
            self.at = end + 2
            return "comment"
        self.at += 1
        return "param" if c == 0x3F else "sign"

    def string(self, quote: int) -> str:
        self.at += 1
        while self.at < len(self.sql):
            c = self.byte()
            if (c == 0x5C and self.backslash) or (c == quote and self.byte(1) == quote):
                self.at += 2
            elif c == quote:
                self.at += 1
                return "string"
            else:
                self.at += 1
        return "broken"

    def quoted_name(self, quote: int) -> str:
        self.at += 1
        while self.at < len(self.sql):
            if self.byte() == quote and self.byte(1) == quote:
                self.at += 2
            elif self.byte() == quote:
                self.at += 1
                return "name"
            else:
                self.at += 1
        return "broken"

    def word(self) -> str:
        while self.byte() in NAME:
            self.at += 1
        return "word"

    def digits(self) -> None:
        while self.byte() in DIGITS:
            self.at += 1

    def number(self) -> str:
        start = self.at
        for letter, allowed in ((0x78, HEX), (0x62, frozenset(b"01"))):
            if self.byte() == 0x30 and self.byte(1) == letter:
                self.at += 2
                begin = self.at
                while self.byte() in allowed:
                    self.at += 1
                if self.at > begin and self.byte() not in NAME:
                    return "number"
                self.at = start
                return self.word()
        self.digits()
        if self.byte() in EXPONENT:
            sign = self.byte(1) in SIGNS
            if self.byte(1 + sign) in DIGITS:
                self.at += 1 + sign
                self.digits()
                return "number"
        if self.byte() in NAME:
            return self.word()
        if self.byte() == 0x2E:
            return self.real()
        return "number"

    def real(self) -> str:
        self.at += 1
        self.digits()
        if self.byte() in EXPONENT:
            sign = self.byte(1) in SIGNS
            if self.byte(1 + sign) in DIGITS:
                self.at += 1 + sign
                self.digits()
        return "number"

    def variable(self) -> str:
        while self.byte() == 0x40:
            self.at += 1
        c = self.byte()
        if c == BACKTICK:
            return "variable" if self.quoted_name(c) == "name" else "broken"
        if c in (QUOTE, DOUBLE):
            ended = self.quoted_name(c) if c == DOUBLE and self.ansi_quotes else self.string(c)
            return "broken" if ended == "broken" else "variable"
        while self.byte() in NAME or self.byte() == 0x2E:
            self.at += 1
        return "variable"

    def line_comment(self) -> str:
        while self.at < len(self.sql) and self.byte() != 0x0A:
            self.at += 1
        return "comment"
