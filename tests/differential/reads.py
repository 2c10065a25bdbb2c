"""SELECT statements of every shape."""

from __future__ import annotations

from tests.differential.nested import Nested
from tests.differential.pieces import Part, optional, piece
from tests.differential.scopes import Scope


class Reads(Nested):
    """All that reads."""

    def found_rows(self) -> tuple[str, Part]:
        """SQL_CALC_FOUND_ROWS with a LIMIT; FOUND_ROWS() should be asked next."""
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        where = self.where(scope, terms)
        order = scope.ordered_by(self.dice)
        end: Part = optional(" ORDER BY ", ", ".join(order), mark="order") if order else ""
        limit = optional(f" LIMIT {self.dice.number(0, 4)}", mark="limit")
        items = self.items(scope)
        return "select found rows", piece("SELECT SQL_CALC_FOUND_ROWS ", items, source, where, end, limit)

    def ordered(self) -> tuple[str, Part]:
        """One table or two in a total order, by any type."""
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        where = self.where(scope, terms) if self.dice.chance(0.5) or terms else ""
        return "select order", piece("SELECT ", self.items(scope), source, where, self.order_and_limit(scope, 0.6))

    def any_query(self) -> tuple[str, Part]:
        """A query of any shape."""
        make = self.dice.weighted((
            (6.0, self.plain), (2.5, self.ordered), (1.5, self.distinct), (2.0, self.aggregated), (3.0, self.grouped),
            (1.7, self.windowed), (1.5, self.union), (1.5, self.derived), (1.3, self.with_query),
            (1.5, self.of_subqueries), (0.3, self.found_rows), (2.0, self.sharp_where), (2.0, self.sharp_join),
            (2.0, self.sharp_subquery),
        ))  # fmt: skip
        return make()
