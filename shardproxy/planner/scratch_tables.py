"""Where a SELECT names tables, found in its tokens: also in texts that the parser does not understand.

A reader of FROM clauses, nothing more. It knows which parentheses hold a query, and in a query which names stand where
a table must. A name that a WITH clause in reach defines is that query, not a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardproxy.planner.calls import closing
from shardproxy.planner.draft import Draft, is_name, refuse
from shardproxy.planner.locks import Lock, read_lock
from shardproxy.sql.functions import RESERVED
from shardproxy.sql.tokens import TokenKind
from shardproxy.sql.words import words

_QUERY = words("SELECT WITH TABLE VALUES")
_ENDS_FROM = words("""
    WHERE GROUP HAVING ORDER LIMIT WINDOW FOR LOCK INTO PROCEDURE UNION EXCEPT INTERSECT MINUS OFFSET FETCH
    SET RETURNING
""")
_SET_OPERATIONS = words("UNION EXCEPT INTERSECT MINUS")
_MODIFIERS = words("""
    ALL DISTINCT DISTINCTROW HIGH_PRIORITY STRAIGHT_JOIN SQL_SMALL_RESULT SQL_BIG_RESULT SQL_BUFFER_RESULT SQL_CACHE
    SQL_NO_CACHE SQL_CALC_FOUND_ROWS
""")
# What may follow a table and is no alias, though not reserved everywhere.
_NO_ALIAS = words("""
    CROSS EXCEPT FETCH FOR FORCE GROUP HAVING IGNORE INNER INTERSECT INTO JOIN LEFT LIMIT LOCK MINUS NATURAL OFFSET ON
    ORDER PARTITION PROCEDURE RIGHT SET STRAIGHT_JOIN UNION USE USING WHERE WINDOW TABLESAMPLE
""") | frozenset(word.upper() for word in RESERVED)


@dataclass(eq=False, slots=True)
class With:
    """A WITH clause: tokens `first` to `body`; it is in reach up to `end`."""

    first: int
    recursive: bool
    ctes: list[Cte] = field(default_factory=list)
    body: int = 0
    end: int = 0


@dataclass(eq=False, slots=True)
class Cte:
    """name [columns] AS ( query ): `first` is the name's token, `opening` and `closing` the parentheses."""

    name: str
    clause: With
    first: int
    opening: int
    closing: int


@dataclass(eq=False, slots=True)
class Reference:
    """A place where a table is named: tokens `first` to `end`. block: number of the SELECT whose FROM it stands in;
    cte: the WITH query that it is, else None."""

    first: int
    end: int
    database: str
    name: str
    has_alias: bool
    alias: str
    block: int
    cte: Cte | None = None


@dataclass(slots=True)
class Select:
    """A SELECT, by its number. first: index behind its FROM, 0 for none; star: it has a * of all columns; starred:
    lower-case aliases that stand before a star; outer: number of the SELECT around it, 0 for none."""

    first: int = 0
    star: bool = False
    starred: set[str] = field(default_factory=set)
    outer: int = 0


@dataclass(slots=True)
class _Frame:
    """What one pair of parentheses holds, or the whole statement."""

    query: bool  # a query, or something in FROM
    end: int
    fenced: bool = False  # a query that does not see the tables of the one around it
    factor: bool = False  # a table is due
    inside_from: bool = False
    block: int = 0  # number of the SELECT that is being read, 0 where it is not certain which
    withs: list[With] = field(default_factory=list)


@dataclass(slots=True)
class Tables:
    """References, WITH clauses, and locking clauses with the number of their SELECT; each in the order of the text.
    selects: by number."""

    references: list[Reference] = field(default_factory=list)
    withs: list[With] = field(default_factory=list)
    locks: list[tuple[int, Lock]] = field(default_factory=list)
    selects: dict[int, Select] = field(default_factory=dict)


def find_tables(draft: Draft, start: int = 0, in_from: bool = False, behind_with: int = 0) -> Tables:
    """All references from the token `start` on; in_from: tables of a FROM clause are due there, without its word.
    behind_with: where the first tokens are a WITH clause, the index behind it.

    Raises UnsupportedError where a table must stand and something unknown does.
    """
    reader = _Reader(draft, in_from and not behind_with)
    if behind_with:
        reader.read(0, behind_with)
        reader.frames[0].factor = reader.frames[0].inside_from = in_from
    return reader.read(start, len(draft.tokens))


class _Reader:
    def __init__(self, draft: Draft, in_from: bool) -> None:
        self.draft = draft
        self.found = Tables()
        self.frames = [_Frame(True, len(draft.tokens), factor=in_from, inside_from=in_from)]
        self.open: dict[int, tuple[With, Cte]] = {}  # closing parenthesis → the WITH query that ends there
        self.blocks = 0

    def read(self, at: int, end: int) -> Tables:
        while at < end:
            at = self._step(at)
        return self.found

    def _step(self, at: int) -> int:
        """Look at one token or more; gives the index behind them."""
        draft, frame = self.draft, self.frames[-1]
        word = draft.word(at)
        if word == "(":
            return self._opening(at, frame)
        if word == ")":
            if len(self.frames) > 1:
                self.frames.pop()
            ended = self.open.pop(at, None)
            if ended is not None:
                return self._cte_ended(at, *ended)
            return at + 1
        if not frame.query:
            return at + 1
        if frame.factor:
            return self._factor(at, frame)
        if word == "WITH" and draft.word(at + 1) != "ROLLUP":
            return self._with(at, frame)
        lock = read_lock(draft, at)
        if lock is not None:
            self.found.locks.append((frame.block, lock))
            frame.inside_from = False
            return lock.end
        if word == "SELECT":
            frame.inside_from = False
            frame.block = self._next_block()
            self._select(frame).outer = self._around()
        elif word == "FROM" and not frame.inside_from:
            frame.inside_from = frame.factor = True
            self._select(frame).first = at + 1
        elif draft.tokens[at].text == "*" and self._is_star(at):
            if draft.word(at - 1) == ".":
                self._select(frame).starred.add(draft.tokens[at - 2].text.lower())
            else:
                self._select(frame).star = True
        elif word == "TABLE" and self._begins_query(at):
            frame.factor = True
            frame.block = self._next_block()
            self._select(frame).star = True
        elif frame.inside_from:
            if word in ("JOIN", "STRAIGHT_JOIN", ",") and draft.word(at - 1) != "FOR":
                frame.factor = True
            elif self._ends_from(at):
                frame.inside_from = False
        if word in _SET_OPERATIONS:
            frame.block = 0
        return at + 1

    def _around(self) -> int:
        """Number of the SELECT whose tables the query that begins may name too; 0 for none."""
        for frame, outer in zip(reversed(self.frames), reversed(self.frames[:-1]), strict=False):
            if frame.fenced:
                return 0
            if outer.block:
                return outer.block
        return 0

    def _select(self, frame: _Frame) -> Select:
        return self.found.selects.setdefault(frame.block, Select())

    def _is_star(self, at: int) -> bool:
        """A * that stands for columns; not the one of EXISTS (SELECT * FROM …), where no value counts."""
        draft = self.draft
        word = draft.word(at - 1)
        if word not in ("SELECT", ",", ".") and word not in _MODIFIERS:
            return False
        exists = word == "SELECT" and draft.word(at - 2) == "(" and draft.word(at - 3) == "EXISTS"
        return not exists or draft.word(at + 1) != "FROM" or not draft.words.isdisjoint(_SET_OPERATIONS)

    def _next_block(self) -> int:
        self.blocks += 1
        return self.blocks

    def _opening(self, at: int, frame: _Frame) -> int:
        first = self.draft.word(at + 1)
        end = closing(self.draft, at)
        if frame.query and frame.factor:
            frame.factor = False
            if first in _QUERY:
                self.frames.append(_Frame(True, end, fenced=True))
            else:  # joins in parentheses, or a query in more than one pair
                self.frames.append(_Frame(True, end, True, factor=True, inside_from=True, block=frame.block))
        else:
            self.frames.append(_Frame(first in _QUERY, end))
        return at + 1

    def _begins_query(self, at: int) -> bool:
        before = self.draft.word(at - 1)
        return at == 0 or before == "(" or before in _SET_OPERATIONS or before in ("ALL", "DISTINCT", ")")

    def _ends_from(self, at: int) -> bool:
        word = self.draft.word(at)
        if word == "ON":
            return self.draft.word(at + 1) == "DUPLICATE"
        return word in _ENDS_FROM and not self._index_hint(at)

    def _index_hint(self, at: int) -> bool:
        """FOR of USE INDEX FOR JOIN, and the word behind it."""
        draft = self.draft
        at = at if draft.word(at) == "FOR" else at - 1
        return draft.word(at) == "FOR" and draft.word(at - 1) in ("INDEX", "KEY")

    # ── WITH ──

    def _with(self, at: int, frame: _Frame) -> int:
        clause = With(at, self.draft.word(at + 1) == "RECURSIVE")
        clause.end = frame.end
        self.found.withs.append(clause)
        frame.withs.append(clause)
        return self._cte(at + 1 + clause.recursive, clause)

    def _cte(self, at: int, clause: With) -> int:
        """name [(columns)] AS ( …: goes on inside the parentheses."""
        draft = self.draft
        opening = at + 1
        if draft.word(opening) == "(":
            opening = closing(draft, opening) + 1
        if at >= len(draft.tokens) or not is_name(draft.tokens[at]) or draft.word(opening) != "AS":
            raise refuse("a WITH clause that cannot be read", 1064)
        opening += 1
        end = closing(draft, opening) if draft.word(opening) == "(" else len(draft.tokens)
        if end >= len(draft.tokens):
            raise refuse("a WITH clause that cannot be read", 1064)
        cte = Cte(draft.tokens[at].text, clause, at, opening, end)
        if clause.recursive:
            clause.ctes.append(cte)
        self.open[end] = (clause, cte)
        self.frames.append(_Frame(True, end, fenced=True))
        return opening + 1

    def _cte_ended(self, at: int, clause: With, cte: Cte) -> int:
        if not clause.recursive:
            clause.ctes.append(cte)  # it does not see itself
        at += 1
        if self.draft.word(at) == "CYCLE":  # MariaDB: CYCLE columns RESTRICT
            while at < len(self.draft.tokens) and self.draft.word(at) != "RESTRICT":
                at += 1
            at += 1
        if self.draft.word(at) == ",":
            return self._cte(at + 1, clause)
        clause.body = at
        return at

    # ── tables ──

    def _factor(self, at: int, frame: _Frame) -> int:
        draft = self.draft
        word = draft.word(at)
        if word == "LATERAL" or word == "{" or (word == "OJ" and draft.word(at - 1) == "{"):
            return at + 1
        if word in _QUERY:  # it was a query in more than one pair of parentheses
            frame.factor = frame.inside_from = False
            return at
        frame.factor = False
        token = draft.tokens[at]
        if word == "JSON_TABLE" and draft.word(at + 1) == "(":
            return at + 1
        if not is_name(token) or draft.word(at + 1) == "(":
            raise refuse("a FROM clause that cannot be read", 1064)
        database, name, end = "", token.text, at + 1
        if draft.word(end) == ".":
            if end + 1 >= len(draft.tokens) or not is_name(draft.tokens[end + 1]):
                raise refuse("a FROM clause that cannot be read", 1064)
            database, name, end = name, draft.tokens[end + 1].text, end + 2
            if draft.word(end) == ".":
                raise refuse("a FROM clause that cannot be read", 1064)
        if word == "DUAL" and not database:
            return end
        if draft.word(end) in ("PARTITION", "TABLESAMPLE"):
            raise refuse(f"{draft.word(end)} of a table over several shards is not supported")
        cte = None if database else self._cte_named(name)
        alias = self._alias(end)
        self.found.references.append(Reference(at, end, database, name, bool(alias), alias or name, frame.block, cte))
        return end

    def _alias(self, at: int) -> str:
        draft = self.draft
        if draft.word(at) == "AS":
            at += 1
        elif at < len(draft.tokens) and draft.tokens[at].kind is TokenKind.WORD and draft.word(at) in _NO_ALIAS:
            return ""
        if at < len(draft.tokens) and (is_name(draft.tokens[at]) or draft.tokens[at].kind is TokenKind.STRING):
            return draft.tokens[at].text
        return ""

    def _cte_named(self, name: str) -> Cte | None:
        for frame in reversed(self.frames):
            for clause in reversed(frame.withs):
                for cte in reversed(clause.ctes):
                    if cte.name == name:
                        return cte
                    if cte.name.lower() == name.lower():
                        raise refuse(f"write '{name}' as in its WITH clause: '{cte.name}'")
        return None
