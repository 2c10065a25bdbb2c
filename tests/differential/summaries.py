"""SELECT with aggregates, GROUP BY, HAVING, ROLLUP and DISTINCT.

What an answer of one server leaves open is not asked: text that a case-blind collation takes for equal is grouped but
not shown, lists are ordered. Sums of floating-point numbers and deviations depend on the order in which a server meets
the rows: those statements are marked "float", and compared with 9 significant digits. Arrays of JSON_ARRAYAGG are in no
order: marked "json", and compared as multisets.
"""

from __future__ import annotations

from tests.differential.pieces import Part, listed, optional, piece
from tests.differential.queries import Queries
from tests.differential.schema import Column
from tests.differential.scopes import Scope, Source, of_kind

_NUMBERS = ("int", "dec")
_DEVIATIONS = ("STD", "STDDEV", "STDDEV_POP", "STDDEV_SAMP", "VARIANCE", "VAR_POP", "VAR_SAMP")


class Summaries(Queries):
    """Statements that make one row of several."""

    # ── aggregates ──

    def aggregate(self, scope: Scope) -> Part:
        """An aggregate whose answer does not depend on the order of rows or on which of equal texts is met first."""
        source = self.dice.one(scope.sources)
        make = self.dice.weighted((
            (3.0, self._count), (3.0, self._number), (2.0, self._extreme), (0.8, self._deviation), (0.8, self._bits),
            (1.0, self._concatenated), (0.5, self._json), (0.6, self._float), (0.7, self._of_expression),
        ))  # fmt: skip
        return make(scope, source) or "COUNT(*)"

    def _any(self, scope: Scope, source: Source, kinds: tuple[str, ...] = (), exact: bool = False) -> str | None:
        columns = [c for c in source.columns if (not kinds or c.kind in kinds) and (c.exact or not exact)]
        return self.columns.write(scope, source, self.dice.one(columns)) if columns else None

    def _count(self, scope: Scope, source: Source) -> Part | None:
        one, other = self._any(scope, source), self._any(scope, source)
        return self.dice.one(("COUNT(*)", "COUNT(*)", f"COUNT({one})", f"COUNT(DISTINCT {one})",
                              f"COUNT(DISTINCT {one}, {other})", "COUNT(1)", "count( * )"))  # fmt: skip

    def _number(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, _NUMBERS)
        form = self.dice.one(("SUM({})", "SUM({})", "AVG({})", "SUM(DISTINCT {})", "AVG(DISTINCT {})", "SUM({} > 3)",
                              "SUM({}) / COUNT({})", "COALESCE(SUM({}), 0)", "SUM(1)", "-AVG({})"))  # fmt: skip
        return form.replace("{}", one) if one else None

    def _extreme(self, scope: Scope, source: Source) -> Part | None:
        # Not of an unsigned key: MariaDB gives 0 for MIN(uid) … WHERE uid = -5 when there is a row with 0.
        columns = [c for c in source.columns if c.exact and (source.table is None or source.table.name != "huge")]
        columns = [c for c in columns if c.kind not in ("json", "bit")]
        if not columns:
            return None
        column = self.dice.one(columns)
        one = self.columns.write(scope, source, column)
        if column.kind in ("enum", "set"):
            one = f"CONCAT({one})"  # MariaDB takes them for numbers where an index serves, for texts elsewhere
        return self.dice.one((f"MIN({one})", f"MAX({one})", f"MAX(DISTINCT {one})", f"HEX(MIN({one}))"))

    def _deviation(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, (*_NUMBERS, "float"))
        return piece(f"{self.dice.one(_DEVIATIONS)}({one})", mark="float") if one else None

    def _bits(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, (*_NUMBERS, "bit"))
        return f"{self.dice.one(('BIT_AND', 'BIT_OR', 'BIT_XOR'))}({one})" if one else None

    def _concatenated(self, scope: Scope, source: Source) -> Part | None:
        order = scope.ordered_by(self.dice)
        exact = self._any(scope, source, exact=True)
        name = self._any(scope, source)
        if exact is None:
            return None
        forms = [f"GROUP_CONCAT(DISTINCT {exact} ORDER BY {exact})",
                 f"GROUP_CONCAT(DISTINCT {exact} ORDER BY {exact} DESC SEPARATOR '')"]  # fmt: skip
        if order:
            total = ", ".join(order)
            forms += [f"GROUP_CONCAT({name} ORDER BY {total} SEPARATOR '|')", f"GROUP_CONCAT({name} ORDER BY {total})",
                      f"GROUP_CONCAT({name}, '-', {exact} ORDER BY {exact} DESC, {total})"]  # fmt: skip
        return self.dice.one(forms)

    def _json(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, exact=True)
        if one is None:
            return None
        forms: list[Part] = [f"JSON_LENGTH(JSON_ARRAYAGG({one}))", piece(f"JSON_ARRAYAGG({one})", mark="json")]
        if not self.at.mariadb:
            forms.append(f"JSON_LENGTH(JSON_OBJECTAGG(COALESCE({one}, 'none'), 1))")
        return self.dice.one(forms)

    def _float(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, ("float", "year", "text"))
        if one is None:
            return None
        return piece(self.dice.one((f"SUM({one})", f"AVG({one})", f"SUM({one} / 3e0)")), mark="float")

    def _of_expression(self, scope: Scope, source: Source) -> Part | None:
        one = self._any(scope, source, _NUMBERS)
        if one is None:
            return None
        condition = self.conditions.any(scope, 0)
        forms: tuple[Part, ...] = (
            piece("SUM(CASE WHEN ", condition, f" THEN {one} ELSE 0 END)", simpler=(f"SUM({one})",)),
                              piece("COUNT(IF(", condition, ", 1, NULL))", simpler=("COUNT(*)",)),
                              piece("SUM(", condition, ")", simpler=("COUNT(*)",)), f"MAX({one} % 10)",
                              f"SUM({one} % 10 + 1)", f"COUNT(DISTINCT {one} % 4)",
        )  # fmt: skip
        return self.dice.one(forms)

    # ── over everything ──

    def aggregated(self) -> tuple[str, Part]:
        """Aggregates over all rows."""
        scope = Scope()
        source, terms = self.from_clause(scope, 3)
        items = listed([self._named(self.aggregate(scope)) for _ in range(self.dice.number(1, 4))])
        where = self.where(scope, terms)
        having: Part = ""
        if self.dice.chance(0.15):
            having = optional(" HAVING ", self._having(scope))
        end = optional(self.dice.one((" LIMIT 1", " LIMIT 0", " LIMIT 5 OFFSET 1"))) if self.dice.chance(0.06) else ""
        return "select aggregate", piece("SELECT ", items, source, where, having, end)

    def _named(self, part: Part) -> Part:
        if self.dice.chance(0.3):
            return piece(part, f" AS {self.dice.one(('a1', 'of_all', '`a b`'))}", simpler=(part,))
        return part

    def _having(self, scope: Scope) -> Part:
        aggregate = self.aggregate(scope)
        forms: tuple[Part, ...] = (
            "COUNT(*) > 1", "COUNT(*) > 1", piece(aggregate, " > 3"), piece(aggregate, " IS NOT NULL"), "0",
            piece("COUNT(*) > (", self.subquery(Scope(outer=Scope()), "one int"), ")"),
            "COUNT(*) NOT IN (2, 3)" if self.at.mariadb  # which finds nothing in such subqueries at times
            else piece(aggregate, " IN (", self.subquery(Scope(outer=Scope()), "int"), ")"), "COUNT(*) BETWEEN 1 AND 3",
            piece("EXISTS (", self.subquery(Scope(outer=Scope()), ""), ")"),
        )  # fmt: skip
        return self.dice.one(forms)

    # ── groups ──

    def grouped(self) -> tuple[str, Part]:
        """GROUP BY of columns, expressions and positions."""
        scope = Scope()
        source, terms = self.from_clause(scope, 3)
        label = "select group"
        shown, hidden = self._groups(scope)
        where = self.where(scope, terms)
        aggregates = [self.aggregate(scope) for _ in range(self.dice.number(1, 3))]
        items = [*shown, *(self._named(a) for a in aggregates)]
        by = [*shown, *hidden]
        if shown and self.dice.chance(0.12):
            by = [*(str(i + 1) for i in range(len(shown))), *hidden]
        if self.dice.chance(0.2):
            items = items[::-1]
            by = [*shown, *hidden]
        having: Part = ""
        if self.dice.chance(0.3):
            label = "select having"
            having = optional(" HAVING ", self._having(scope))
        end: Part = ""
        rollup: Part = ""
        if self.dice.chance(0.12):
            label = "select rollup"
            rollup = optional(" WITH ROLLUP")
        elif self.dice.chance(0.4):
            end = self._group_order(shown, hidden, aggregates)
        group = listed(by)
        return label, piece("SELECT ", listed(items), source, where, " GROUP BY ", group, rollup, having, end)

    def _groups(self, scope: Scope) -> tuple[list[Part], list[Part]]:
        """Expressions to group by: (those whose values are certain, those whose values are not)."""
        shown: list[Part] = []
        hidden: list[Part] = []
        for source in [self.dice.one(scope.sources) for _ in range(self.dice.weighted(((5.0, 1), (3.0, 2), (0.6, 3))))]:
            column = self.dice.one(source.columns)
            if source.key and self.dice.chance(0.25):
                column = next(c for c in source.columns if c.name == source.key)
            name = self.columns.write(scope, source, column)
            if column.kind in ("json", "bit"):
                shown.append(f"JSON_LENGTH({name})" if column.kind == "json" else f"{name} + 0")
            elif self.dice.chance(0.3):
                shown.append(self._expression(column, name))
            elif column.exact:
                shown.append(name)
            else:
                hidden.append(name)
        texts = {str(part): part for part in shown}
        return list(texts.values()), [h for h in hidden if h not in texts]

    def _expression(self, column: Column, name: str) -> str:
        forms = [f"{name} IS NULL", f"LENGTH({name})", f"COALESCE({name}, NULL) IS NULL"]
        if column.kind in _NUMBERS:
            forms += [f"{name} % 3", f"SIGN({name})", f"FLOOR({name} / 10)", f"{name} > 5", f"{name} & 1"]
        if column.kind == "text" and column.exact:
            forms += [f"LEFT({name}, 1)", f"UPPER({name})", f"{name} = 'a'"]
        if column.kind in ("date", "time"):
            forms += [f"YEAR({name})", f"MONTH({name})", f"DATE_FORMAT({name}, '%Y-%m')"]
        return self.dice.one(forms)

    def _group_order(self, shown: list[Part], hidden: list[Part], aggregates: list[Part]) -> Part:
        """ORDER BY that leaves no ties between groups, perhaps with LIMIT."""
        first: list[Part] = []
        if self.dice.chance(0.4):
            first = [piece(self.dice.one(aggregates), self.dice.one(("", " DESC")))]
        whole = [*first, *(piece(part, self.dice.one(("", "", " DESC"))) for part in [*shown, *hidden])]
        order = optional(" ORDER BY ", listed(whole, least=len(whole)), mark="order")
        if self.dice.chance(0.4):
            return piece(order, optional(self.limit(), mark="limit"), simpler=("",))
        return order

    # ── DISTINCT ──

    def distinct(self) -> tuple[str, Part]:
        """DISTINCT of values whose equals are the same bytes; of others only their number is compared."""
        scope = Scope()
        source, terms = self.from_clause(scope, 3)
        blind = self.dice.chance(0.12)
        pairs = [(s, c) for s in scope.sources for c in s.columns if blind or c.exact]
        chosen = self.dice.some(pairs, 1, 3)
        names: list[Part] = [self.columns.write(scope, s, c) for s, c in chosen]
        if self.dice.chance(0.2):
            names = [self._expression(c, str(n)) for (_, c), n in zip(chosen, names, strict=True)]
        certain = not blind or all(c.exact for _, c in chosen)
        where = self.where(scope, terms)
        end: Part = ""
        if certain and self.dice.chance(0.4):
            order = optional(" ORDER BY ", listed([piece(n, self.dice.one(("", " DESC"))) for n in names],
                             least=len(names)), mark="order")  # fmt: skip
            end = piece(order, optional(self.limit(), mark="limit"), simpler=("",)) if self.dice.chance(0.5) else order
        verb = self.dice.one(("SELECT DISTINCT ", "SELECT DISTINCT ", "SELECT DISTINCTROW "))
        body = piece(verb, listed(names, least=len(names)), source, where, end, mark="" if certain else "count")
        return "select distinct", body

    def of_numbers(self, source: Source) -> list[Column]:
        """Columns that can be added up exactly."""
        return of_kind(source, _NUMBERS)
