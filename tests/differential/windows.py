"""Window functions. Orders inside windows leave no ties where the function could tell tied rows apart."""

from __future__ import annotations

from tests.differential.pieces import Part, listed, optional, piece
from tests.differential.scopes import Scope
from tests.differential.summaries import Summaries

_FRAMES = ("", "", " ROWS UNBOUNDED PRECEDING", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
           " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING", " ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING",
           " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW")  # fmt: skip


class Windows(Summaries):
    """Statements with OVER."""

    def windowed(self) -> tuple[str, Part]:
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        if self.dice.chance(0.2):
            return "select window", self._over_groups(scope, source, self.where(scope, terms))
        named = self.dice.chance(0.15)
        over = self._window(scope)
        calls = [self._call(scope, over if not named else "w") for _ in range(self.dice.one((1, 1, 2)))]
        where = self.where(scope, terms)
        items = listed([self.scalar(scope, 0), *(piece(call, f" AS w{i}") for i, call in enumerate(calls))])
        window = f" WINDOW w AS {over}" if named else ""
        end: Part = self.order_and_limit(scope) if self.dice.chance(0.3) else ""
        return "select window", piece("SELECT ", items, source, where, window, end)

    def _window(self, scope: Scope) -> str:
        """(PARTITION BY … ORDER BY …), both left out at times; an order is total."""
        source = self.dice.one(scope.sources)
        column = self.dice.one([c for c in source.columns if c.kind != "json"])
        by = self.columns.write(scope, source, column)
        if source.key and self.dice.chance(0.25):
            by = self.columns.write(scope, source, source.key)
        elif column.kind == "int" and self.dice.chance(0.3):
            by = f"{by} % 3"
        total = scope.ordered_by(self.dice)
        if total is None or self.dice.chance(0.2):
            return self.dice.one((f"(PARTITION BY {by})", "()"))
        if self.dice.chance(0.6):
            total.insert(0, self._order(scope))
        order = ", ".join(total)
        return self.dice.one((f"(ORDER BY {order})", f"(PARTITION BY {by} ORDER BY {order})"))

    def _call(self, scope: Scope, over: str) -> Part:
        """A window function; with a named window or none that has an order, one that needs no order."""
        source = self.dice.one(scope.sources)
        numbers = self.of_numbers(source)
        value = self.columns.write(scope, source, self.dice.one(numbers)) if numbers else "1"
        any_value = self.columns.write(scope, source, self.dice.one(source.columns))
        framed = over
        if "ORDER BY" in over and self.dice.chance(0.4):
            framed = over[:-1] + self.dice.one(_FRAMES) + ")"
        whole = (f"COUNT(*) OVER {framed}", f"SUM({value}) OVER {framed}", f"COUNT({any_value}) OVER {framed}",
                 f"AVG({value}) OVER {framed}", f"MIN({value}) OVER {framed}", f"MAX({value}) OVER {framed}",
                 f"SUM({value} % 5) OVER {framed}")  # fmt: skip
        if "ORDER BY" not in over:
            return self.dice.one(whole)
        offset = "" if self.at.mariadb else self.dice.one(("", ", 2, 7"))
        ranked = (f"ROW_NUMBER() OVER {over}", f"RANK() OVER {over}", f"DENSE_RANK() OVER {over}",
                  f"NTILE(3) OVER {over}", f"LAG({value}{offset}) OVER {over}", f"LEAD({any_value}) OVER {over}",
                  f"FIRST_VALUE({any_value}) OVER {framed}", f"LAST_VALUE({value}) OVER {framed}",
                  f"NTH_VALUE({value}, 2) OVER {framed}", f"PERCENT_RANK() OVER {over}",
                  f"CUME_DIST() OVER {over}")  # fmt: skip
        return self.dice.one((*whole[:4], *ranked))

    def _over_groups(self, scope: Scope, source: Part, where: Part) -> Part:
        """Windows over the groups of a GROUP BY."""
        chosen = self.dice.one(scope.sources)
        exact = [c for c in chosen.columns if c.exact and c.kind != "json"]
        by = self.columns.write(scope, chosen, self.dice.one(exact)) if exact else "1"
        call = self.dice.one((
            f"SUM(COUNT(*)) OVER (ORDER BY {by})", f"RANK() OVER (ORDER BY COUNT(*) DESC, {by})",
            f"ROW_NUMBER() OVER (ORDER BY {by})", "SUM(COUNT(*)) OVER ()", f"LAG(COUNT(*)) OVER (ORDER BY {by} DESC)",
        ))  # fmt: skip
        # MariaDB forgets the order of some of these.
        ordered = not self.at.mariadb and self.dice.chance(0.4)
        end = optional(f" ORDER BY {by}", mark="order") if ordered else ""
        return piece(f"SELECT {by}, COUNT(*), {call} AS w", source, where, f" GROUP BY {by}", end)
