"""WHERE, ON and HAVING expressions: conditions on the key in every combination, and on everything else."""

from __future__ import annotations

from collections.abc import Callable

from tests.differential.dice import Situation
from tests.differential.literals import Literals
from tests.differential.pieces import Part, listed, piece
from tests.differential.schema import Column
from tests.differential.scopes import Columns, Scope, Source, of_kind

# A value of each kind of column that subqueries are compared with.
CONSTANTS = {"int": "1", "dec": "1.5", "text": "'a'", "date": "'1953-04-15'", "bytes": "x'61'"}
Subquery = Callable[[Scope, str], Part]


class Conditions:
    """subquery: makes a query of one column of a kind, correlated with a scope."""

    def __init__(self, situation: Situation, literals: Literals, subquery: Subquery) -> None:
        self.at = situation
        self.dice = situation.dice
        self.literals = literals
        self.columns = Columns(situation.dice, situation.ansi_quotes)
        self.subquery = subquery

    def any(self, scope: Scope, depth: int = 2) -> Part:
        """A condition on the scope's columns."""
        if depth <= 0 or self.dice.chance(0.5):
            return self._term(scope, depth)
        left, right = self.any(scope, depth - 1), self.any(scope, depth - 1)
        both = (left, right)
        return self.dice.weighted((
            (4.0, piece(left, self.dice.one((" AND ", " AND ", " && ")), right, simpler=both)),
            (3.0, piece("(", left, self.dice.one((" OR ", " OR ", " or ")), right, ")", simpler=both)),
            (1.0, piece(left, " OR ", right, simpler=both)),
            (0.5, piece(left, " || ", right, simpler=both)),
            (1.0, piece(left, " XOR ", right, simpler=both)),
            (1.0, piece("NOT (", left, " OR ", right, ")", simpler=both)),
            (0.6, piece("NOT ", left, simpler=both)),
            (0.3, piece("!", "(", left, ")", simpler=both)),
            (0.4, piece("(", left, ")", self.dice.one((" = 1", " IS TRUE", " IS NOT FALSE", " = 0")), simpler=both)),
            (0.3, piece("(", left, ") = (", right, ")", simpler=both)),
            (0.3, piece("CASE WHEN ", left, " THEN ", right, " ELSE 1 END", simpler=both)),
            (0.3, piece("IF(", left, ", ", right, ", NULL)", simpler=both)),
            (0.2, piece("COALESCE(", left, ", ", right, ")", simpler=both)),
            (0.3, piece("(", left, " AND ", right, ")", simpler=both)),
        ))  # fmt: skip

    def _term(self, scope: Scope, depth: int) -> Part:
        source = self._source(scope)
        if source is None:
            return self._constant()
        if source.key and self.dice.chance(0.4):
            return self.on_key(scope, source)
        if source.table is not None and source.table.looked_up and self.dice.chance(0.5):
            return self._looked_up(scope, source)
        make = self.dice.weighted((
            (6.0, self._compared), (2.0, self._listed), (1.5, self._between), (1.0, self._null), (0.7, self._like),
            (1.0, self._two_columns), (0.6, self._row), (0.4, self._odd_key),
        ))  # fmt: skip
        if depth > 0 and self.dice.chance(0.15):
            return self._with_subquery(scope, source)
        if self.dice.chance(0.06):
            return self._constant()
        return make(scope, source)

    def _source(self, scope: Scope) -> Source | None:
        while not scope.sources:
            if scope.outer is None:
                return None
            scope = scope.outer
        if scope.outer is not None and scope.outer.sources and self.dice.chance(0.2):
            return self.dice.one(scope.outer.sources)
        return self.dice.one(scope.sources)

    def _constant(self) -> Part:
        return self.dice.one(("TRUE", "1", "0", "FALSE", "NULL", "1 = 1", "'a' = 'A'", "NULL IS NULL", "5 IN (5)"))

    def _looked_up(self, scope: Scope, source: Source) -> Part:
        """The values of a lookup index."""
        assert source.table is not None
        columns = [source.table.column(name) for name in self.dice.one(source.table.looked_up)]
        names = [self.columns.write(scope, source, column) for column in columns]
        if len(columns) == 1 and self.dice.chance(0.15):
            values = [self.literals.value(columns[0]) for _ in range(self.dice.number(1, 3))]
            return piece(names[0], " IN (", listed(values), ")")
        terms = [piece(name, " = ", self.literals.value(c)) for name, c in zip(names, columns, strict=True)]
        return terms[0] if len(terms) == 1 else piece("(", terms[0], " AND ", terms[1], ")")

    # ── on the key ──

    def pinned(self, scope: Scope, source: Source, odd: float = 0.1) -> Part:
        """key = home, the plain way or nearly."""
        name = self.columns.write(scope, source, source.key)
        value = self.literals.of_key(self.at.home, odd)
        form = self.dice.one((0, 0, 0, 0, 0, 0, 1, 2, 3))
        if form == 1:
            return piece(value, " = ", name)
        if form == 2:
            return piece(name, " IN (", value, ")")
        if form == 3 and isinstance(self.at.home, int):
            return piece(name, " BETWEEN ", value, " AND ", self.literals.of_key(self.at.home, 0.0))
        return piece(name, self.dice.one((" = ", " = ", "=", " <=> ", " =\n")), value)

    def on_key(self, scope: Scope, source: Source) -> Part:
        """Any condition on the key."""
        name = self.columns.write(scope, source, source.key)

        def key() -> Part:
            wanted = self.literals.key(near_home=self.dice.chance(0.6))
            if isinstance(wanted, int) and source.table is not None and source.table.column(source.key).kind == "uint":
                # MySQL takes -(2**63) among odd literals for the unsigned number of the same bits.
                wanted = abs(wanted) % 2**63
            return self.literals.of_key(wanted)

        form = self.dice.number(0, 11)
        if form <= 3:
            return piece(name, self.dice.one((" = ", " = ", "=", " <=> ")), key())
        if form == 4:
            return piece(key(), " = ", name)
        if form <= 6:
            keys = [key() for _ in range(self.dice.number(1, 4))]
            if self.dice.chance(0.15):
                keys.insert(self.dice.number(0, len(keys)), self.dice.one(("NULL", name, "1+1", "(SELECT 5)")))
            return piece(name, self.dice.one((" IN (", " IN (", " IN(", " NOT IN (")), listed(keys), ")")
        if form == 7:
            return piece(name, self.dice.one((" BETWEEN ", " BETWEEN ", " NOT BETWEEN ")), key(), " AND ", key())
        if form == 8:
            return piece(key(), self.dice.one((" < ", " >= ", " > ", " <= ")), name)
        if form == 9:
            low, high = piece(name, " >= ", key()), piece(name, " < ", key())
            return piece(low, " AND ", high, simpler=(low, high))
        return piece(name, self.dice.one((" < ", " > ", " <= ", " >= ", " <> ", " != ")), key())

    def about_key(self, scope: Scope, source: Source, depth: int) -> Part:
        """An expression that is about the source's key nearly everywhere."""
        if depth <= 0 or self.dice.chance(0.35):
            make = self.dice.weighted(((5.0, self.on_key), (2.0, self._odd_key), (2.0, self._compared)))
            return make(scope, source)
        left, right = self.about_key(scope, source, depth - 1), self.about_key(scope, source, depth - 1)
        both = (left, right)
        return self.dice.weighted((
            (3.0, piece(left, " AND ", right, simpler=both)), (3.0, piece(left, " OR ", right, simpler=both)),
            (1.0, piece("(", left, ") AND (", right, ")", simpler=both)), (1.0, piece(left, " XOR ", right,
            simpler=both)),
            (1.0, piece("(", left, " OR ", right, ")", simpler=both)), (0.7, piece("NOT ", left, " AND ", right,
            simpler=both)),
            (0.7, piece("NOT (", left, ") OR ", right, simpler=both)), (0.4, piece("! ", left, " OR ", right,
            simpler=both)),
            (0.4, piece(left, " && ", right, simpler=both)), (0.4, piece(left, " || ", right, simpler=both)),
            (0.4, piece("(", left, ") = (", right, ")", simpler=both)), (0.4, piece(left, " = ", right, simpler=both)),
            (0.4, piece(left, " IS TRUE AND ", right, " IS NOT FALSE", simpler=both)),
            (0.3, piece("CASE WHEN ", left, " THEN ", right, " END", simpler=both)),
            (0.3, piece("IF(", left, ", 1, ", right, ")", simpler=both)),
            (0.3, piece(left, " IN (", right, ")", simpler=both)),
            (0.3, piece(left, " BETWEEN ", right, " AND 1", simpler=both)),
            (0.3, piece("(", left, ", 1) = (", right, ", 1)", simpler=both)),
        ))  # fmt: skip

    def _odd_key(self, scope: Scope, source: Source) -> Part:
        """The key in expressions that a careless reader takes for a condition on it."""
        column = source.key or self.dice.one(source.columns).name
        name = self.columns.write(scope, source, column)
        value = self.literals.of_key(self.at.home, 0.05)
        forms: tuple[Part, ...] = (
            piece(name, " = ", name), piece(name, " = ", value, " = 1"), piece(name, " = ", value, " = 0"),
            piece(value, " = ", name, " = 1"), piece("NOT ", name, " = ", value), piece("! ", name, " = ", value),
            piece("(", name, " = ", value, ") IS NULL"), piece(name, " = ", value, " IS NULL"), piece(name, " = ",
            value, " IS TRUE"), piece("(", name, ") = ", value),
            piece("((", name, " = ", value, "))"), piece(name, " = (", value, ")"), piece(name, " IN ((", value, "))"),
            piece(name, " = ANY (SELECT ", value, ")"), piece(name, " <> ALL (SELECT ", value, ")"),
            piece(name, " IN (SELECT ", value, ")"), piece(name, " NOT IN (SELECT ", value, " UNION SELECT NULL)"),
            piece(name, " = ", value, " AND 0"), piece("0 OR ", name, " = ", value), piece("- (", name, " % 9) = ",
            value),
            piece(name, " + 0 = ", value), piece(name, " = ", value, " + 0"), piece("1 = (", name, " = ", value, ")"),
            piece(name, " LIKE ", value), piece(name, " = ", value, " COLLATE utf8mb4_general_ci"),
            piece("(", name, ", 1) = (", value, ", 1)"), piece("(", name, ", 1) IN ((", value, ", 1))"),
            piece("EXISTS (SELECT 1 FROM dual WHERE ", name, " = ", value, ")"), piece("ABS(", name, " % 9) = ", value),
            piece("NULLIF(", name, ", ", value, ") IS NULL"), piece(name, " BETWEEN ", value, " AND NULL"),
            piece(name, " IS NOT NULL AND ", name, " = ", value), piece("CASE ", name, " WHEN ", value, " THEN 1 END"),
            piece("IFNULL(", name, ", 1) = ", value), piece("INTERVAL(", name, ", ", value, ") = 1"),
            piece(name, " = ", value, " DIV 1"), piece(name, " IN (", value, ") = 0"), piece("BINARY ", name, " = ",
            value),
            piece(name, " BETWEEN ", value, " AND ", value, " = 0"), piece(name, " = ", value, " OR NULL"),
            piece(name, " NOT IN (NULL, ", value, ")"), piece(name, " IN (NULL)"), piece(name, " = NULL IS NULL"),
        )  # fmt: skip
        return self.dice.one(forms)

    def joined(self, scope: Scope, left: Source, right: Source) -> Part:
        """What joins two sources: their keys mostly."""
        kinds = [next(c.kind for c in s.columns if c.name == s.key) for s in (left, right) if s.key]
        if len(kinds) == 2 and kinds[0].removeprefix("u") == kinds[1].removeprefix("u") and self.dice.chance(0.8):
            names = [self.columns.write(scope, left, left.key), self.columns.write(scope, right, right.key)]
            if self.dice.chance(0.5):
                names.reverse()
            return piece(names[0], self.dice.one((" = ", " = ", " = ", " <=> ")), names[1])
        pairs = [(a, b) for a in left.columns for b in right.columns if a.kind == b.kind]
        if not pairs:
            return "TRUE"
        a, b = self.dice.one(pairs)
        return piece(self.columns.write(scope, left, a), " = ", self.columns.write(scope, right, b))

    # ── on other columns ──

    def _compared(self, scope: Scope, source: Source) -> Part:
        column = self.dice.one(source.columns)
        sign = self.dice.one((" = ", " = ", " <> ", " < ", " > ", " <= ", " >= ", " <=> ", " != "))
        return piece(self.columns.write(scope, source, column), sign, self.literals.value(column))

    def _listed(self, scope: Scope, source: Source) -> Part:
        column = self.dice.one(source.columns)
        values = [self.literals.value(column) for _ in range(self.dice.number(1, 3))]
        sign = self.dice.one((" IN (", " IN (", " NOT IN ("))
        return piece(self.columns.write(scope, source, column), sign, listed(values), ")")

    def _between(self, scope: Scope, source: Source) -> Part:
        column = self.dice.one(source.columns)
        low, high = self.literals.value(column), self.literals.value(column)
        sign = self.dice.one((" BETWEEN ", " NOT BETWEEN "))
        return piece(self.columns.write(scope, source, column), sign, low, " AND ", high)

    def _null(self, scope: Scope, source: Source) -> Part:
        name = self.columns.write(scope, source, self.dice.one(source.columns))
        return piece(name, self.dice.one((" IS NULL", " IS NOT NULL", " <=> NULL", " = NULL")))

    def _like(self, scope: Scope, source: Source) -> Part:
        columns = of_kind(source, ("text",))
        if not columns:
            return self._null(scope, source)
        pattern = self.dice.one(("'a%'", "'%b'", "'_'", "'%'", "'A_'", "'%5%'", "'x\\\\_y' ESCAPE '|'"))
        return piece(self.columns.write(scope, source, self.dice.one(columns)), " LIKE ", pattern)

    def _two_columns(self, scope: Scope, source: Source) -> Part:
        other = self.dice.one(scope.sources) if scope.sources else source
        pairs = [(a, b) for a in source.columns for b in other.columns if a.kind == b.kind]
        if not pairs:
            return self._null(scope, source)
        a, b = self.dice.one(pairs)
        sign = self.dice.one((" = ", " <> ", " <=> "))
        return piece(self.columns.write(scope, source, a), sign, self.columns.write(scope, other, b))

    def _row(self, scope: Scope, source: Source) -> Part:
        columns = self.dice.some(source.columns, 2, 2)
        if len(columns) < 2:
            return self._null(scope, source)
        names = ", ".join(self.columns.write(scope, source, column) for column in columns)

        def row() -> Part:
            return piece("(", listed([self._value(source, c) for c in columns], least=2), ")")

        if self.dice.chance(0.5):
            return piece("(", names, ")", self.dice.one((" = ", " <> ", " <=> ")), row())
        return piece("(", names, ") IN (", listed([row() for _ in range(self.dice.number(1, 3))]), ")")

    def _value(self, source: Source, column: Column) -> Part:
        if column.name == source.key:
            return self.literals.of_key(self.literals.key(), 0.1)
        return self.literals.value(column)

    def _with_subquery(self, scope: Scope, source: Source) -> Part:
        columns = [c for c in source.columns if c.kind in CONSTANTS]
        form = self.dice.number(0, 5) if columns else 0
        column = self.dice.one(columns or source.columns)
        if source.key and self.dice.chance(0.5) and columns:
            column = next((c for c in columns if c.name == source.key), column)
        name = self.columns.write(scope, source, column)
        inner = Scope(outer=scope)
        if form <= 1:
            return piece(self.dice.one(("EXISTS (", "NOT EXISTS (")), self.subquery(inner, ""), ")")
        if form <= 3:
            sign = self.dice.one((" IN (", " IN (", " NOT IN ("))
            return piece(name, sign, self.subquery(inner, column.kind), ")")
        if form == 4:
            sign = self.dice.one((" = ANY (", " <> ALL (", " >= ALL (", " < SOME ("))
            return piece(name, sign, self.subquery(inner, column.kind), ")")
        return piece(name, self.dice.one((" = (", " > (", " <=> (")), self.subquery(inner, f"one {column.kind}"), ")")
