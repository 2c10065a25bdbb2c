"""Queries within queries: derived tables, WITH (recursive too), set operations, subqueries as values."""

from __future__ import annotations

from tests.differential.pieces import Part, listed, optional, piece
from tests.differential.schema import Column
from tests.differential.scopes import Scope, Source, of_kind
from tests.differential.windows import Windows

_KINDS = ("int", "int", "text", "dec", "date", "enum", "bytes", "float")


class Nested(Windows):
    """Statements with query blocks inside."""

    # ── blocks that stand for tables ──

    def block(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        """(a query, its columns, those of them that tell its rows apart) for use in FROM or WITH."""
        make = self.dice.weighted(
            ((3.0, self._block_of_rows), (3.0, self._block_of_groups), (1.0, self._block_of_first),
             (1.0, self._block_of_sets), (0.7, self._block_of_join), (0.7, self._block_of_windows))
        )  # fmt: skip
        return make()

    def _block_of_rows(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        inner = Scope()
        text, source = self.source(inner, self.table(("sharded", "sharded", "reference", "single")))
        inner.sources.append(source)
        assert source.table is not None
        where = self.where(inner, [])
        if self.dice.chance(0.4):
            return piece("SELECT * FROM ", text, where), source.columns, source.table.primary
        free = [c for c in source.columns if c.name not in source.table.primary]
        chosen = [*(source.table.column(n) for n in source.table.primary), *self.dice.some(free, 1, 2)]
        names = ", ".join(f"{source.name}.{c.name}" for c in chosen)
        return piece(f"SELECT {names} FROM ", text, where), tuple(chosen), source.table.primary

    def _block_of_groups(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        inner = Scope()
        source, terms = self.from_clause(inner, 2)
        chosen = self.dice.one(inner.sources)
        exact = [c for c in chosen.columns if c.exact and c.kind != "json"]
        column = self.dice.one(exact)
        if chosen.key and self.dice.chance(0.3):
            column = next(c for c in chosen.columns if c.name == chosen.key)
        name = self.columns.write(inner, chosen, column)
        numbers = self.of_numbers(chosen)
        total = f"SUM({self.columns.write(inner, chosen, self.dice.one(numbers))})" if numbers else "SUM(1)"
        having = optional(" HAVING COUNT(*) > 1") if self.dice.chance(0.3) else ""
        where = self.where(inner, terms)
        body = piece(f"SELECT {name} AS k, COUNT(*) AS n, {total} AS s", source, where, f" GROUP BY {name}", having)
        return body, (Column("k", column.kind), Column("n", "int"), Column("s", "dec")), ("k",)

    def _block_of_first(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        """The first rows in a total order."""
        body, columns, unique = self._block_of_rows()
        order = ", ".join(f"{name}{self.dice.one(('', ' DESC'))}" for name in unique)
        return piece(body, f" ORDER BY {order} LIMIT {self.dice.one((1, 3, 8))}"), columns, unique

    def _block_of_sets(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        kind = self.dice.one(("int", "text"))
        word = self.dice.one((" UNION ", " UNION ALL ", " UNION "))
        first = self._columns_of_kinds([kind], "v")
        return piece(first, word, self._columns_of_kinds([kind])), (Column("v", kind),), ()

    def _block_of_join(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        inner = Scope()
        source, terms = self.from_clause(inner, 3)
        pairs = self.dice.some([(s, c) for s in inner.sources for c in s.columns], 1, 3)
        items = listed([f"{s.name}.{c.name} AS c{i}" for i, (s, c) in enumerate(pairs)], least=len(pairs))
        columns = tuple(Column(f"c{i}", c.kind, c.exact) for i, (_, c) in enumerate(pairs))
        return piece("SELECT ", items, source, self.where(inner, terms)), columns, ()

    def _block_of_windows(self) -> tuple[Part, tuple[Column, ...], tuple[str, ...]]:
        inner = Scope()
        text, source = self.source(inner, self.table(("sharded", "reference")))
        inner.sources.append(source)
        assert source.table is not None
        total = ", ".join(f"{source.name}.{n}" for n in source.table.primary)
        by = self.dice.one([c for c in source.columns if c.kind != "json"]).name
        names = ", ".join(f"{source.name}.{n}" for n in source.table.primary)
        number = f"ROW_NUMBER() OVER (PARTITION BY {source.name}.{by} ORDER BY {total}) AS rn"
        body = piece(f"SELECT {names}, {number} FROM ", text, self.where(inner, []))
        columns = (*(source.table.column(n) for n in source.table.primary), Column("rn", "int"))
        return body, columns, source.table.primary

    # ── derived tables and WITH ──

    def derived(self) -> tuple[str, Part]:
        """A subquery in FROM, alone or joined."""
        body, columns, unique = self.block()
        scope = Scope([Source("d", columns, None, unique=unique)])
        lateral = not self.at.mariadb and self.dice.chance(0.12)
        if lateral:
            return "select lateral", self._lateral()
        joined = self._joined(scope) if self.dice.chance(0.45) else ""
        return "select derived", self._around(scope, piece(" FROM (", body, ") AS d"), joined)

    def _joined(self, scope: Scope) -> Part:
        """A join of the scope's first source with a table or another derived table."""
        first = scope.sources[0]
        if self.dice.chance(0.3):
            body, columns, unique = self.block()
            right = Source("e", columns, None, unique=unique)
            text: Part = piece("(", body, ") AS e")
        else:
            text, right = self.source(scope)
        scope.sources.append(right)
        on = self._on(first, right)
        return optional(self.dice.one((" JOIN ", " LEFT JOIN ", " JOIN ", " RIGHT JOIN ")), text, " ON ", on)

    def _on(self, left: Source, right: Source) -> str:
        pairs = [(a, b) for a in left.columns for b in right.columns if a.kind == b.kind and a.kind != "json"]
        same = [(a, b) for a, b in pairs if a.name == b.name]
        if not pairs:
            return "1 = 1"
        a, b = self.dice.one(same if same and self.dice.chance(0.6) else pairs)
        return f"{left.name}.{a.name} = {right.name}.{b.name}"

    def _around(self, scope: Scope, first: Part, joined: Part) -> Part:
        """A query over sources that are there."""
        where = optional(" WHERE ", self.conditions.any(scope, 1)) if self.dice.chance(0.4) else ""
        form = self.dice.number(0, 3)
        if form == 0:
            items = listed([self.aggregate(scope) for _ in range(self.dice.number(1, 2))])
            return piece("SELECT ", items, first, joined, where)
        if form == 1:
            shown, hidden = self._groups(scope)
            items = listed([*shown, self.aggregate(scope)])
            return piece("SELECT ", items, first, joined, where, " GROUP BY ", listed([*shown, *hidden]))
        end = self.order_and_limit(scope) if self.dice.chance(0.35) else ""
        return piece("SELECT ", self.items(scope), first, joined, where, end)

    def _lateral(self) -> Part:
        scope = Scope()
        text, source = self.source(scope, self.table(("sharded", "reference")))
        scope.sources.append(source)
        inner = Scope(outer=scope)
        inner_text, other = self.source(inner, self.table(("sharded",)))
        inner.sources.append(other)
        on = self.conditions.joined(inner, source, other)
        body = piece("SELECT COUNT(*) AS n, MIN(", f"{other.name}.{other.table.primary[0] if other.table else 1}",
                     ") AS m FROM ", inner_text, " WHERE ", on)  # fmt: skip
        return piece(f"SELECT {source.name}.*, l.n, l.m FROM ", text, " JOIN LATERAL (", body, ") AS l",
                     optional(" ON l.n > 0"))  # fmt: skip

    def with_query(self) -> tuple[str, Part]:
        """WITH of one or two, used once or more."""
        if self.dice.chance(0.3):
            return "select recursive", self._recursive()
        body, columns, unique = self.block()
        scope = Scope([Source("d", columns, None, unique=unique)])
        form = self.dice.number(0, 4)
        head = piece("WITH d AS (", body, ") ")
        if form == 0:
            other, other_columns, other_unique = self.block()
            scope.sources.append(Source("e", other_columns, None, unique=other_unique))
            head = piece("WITH d AS (", body, "), e AS (", other, ") ")
            joined: Part = piece(self.dice.one((" JOIN e ON ", " LEFT JOIN e ON ")), self._on(*scope.sources))
        elif form == 1:
            scope.sources.append(Source("e", columns, None, unique=unique))
            joined = piece(" JOIN d AS e ON ", f"d.{columns[0].name} = e.{columns[0].name}")
        elif form == 2:
            items = ", ".join(f"d.{c.name}" for c in columns[:3] if c.exact) or "1"
            return "select cte", piece(head, f"SELECT {items} FROM d UNION ALL SELECT {items} FROM d",
                                       optional(" WHERE ", self.conditions.any(scope, 0)))  # fmt: skip
        else:
            joined = self._joined(scope) if self.dice.chance(0.4) else ""
        return "select cte", piece(head, self._around(scope, " FROM d", joined))

    def _recursive(self) -> Part:
        form = self.dice.number(0, 4)
        if self.at.database in ("txt", "bin"):
            form = 0
        top = self.dice.number(3, 9)
        numbers = f"WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < {top}) "
        if form == 0:
            scope = Scope()
            text, source = self.source(scope, self.table(("sharded", "reference")))
            whole = [c for c in of_kind(source, ("int",)) if c.name != source.key] or of_kind(source, ("int",))
            if not whole:
                return piece(numbers, f"SELECT i, (SELECT COUNT(*) FROM {source.table.name if source.table else ''}) "
                             "FROM r")  # fmt: skip
            column = self.dice.one(whole).name
            return piece(numbers, f"SELECT r.i, COUNT({source.name}.{column}) FROM r LEFT JOIN ", text,
                         f" ON {source.name}.{column} = r.i GROUP BY r.i",
                         optional(" ORDER BY r.i", mark="order"))  # fmt: skip
        union = self.dice.one((" UNION ALL ", " UNION "))
        start = self.dice.one(("a.aid < 3", "a.uid IS NULL", "a.aid = 5", "a.aid BETWEEN 0 AND 7"))
        if form <= 2:
            return piece(f"WITH RECURSIVE r AS (SELECT a.aid, a.uid, 0 AS d FROM audit a WHERE {start}{union}"
                         "SELECT a.aid, a.uid, r.d + 1 FROM audit a JOIN r ON a.aid = r.uid WHERE r.d < 4) ",
                         self.dice.one(("SELECT * FROM r", "SELECT d, COUNT(*) FROM r GROUP BY d",
                                        "SELECT r.d, u.nick FROM r JOIN users u ON u.uid = r.aid")))  # fmt: skip
        return piece(numbers, "SELECT r.i, u.uid FROM r JOIN users u ON u.uid % 10 = r.i",
                     optional(" ORDER BY r.i, u.uid", mark="order"))  # fmt: skip

    # ── set operations ──

    def union(self) -> tuple[str, Part]:
        """Set operations over exact columns, with an order and a limit for all."""
        kinds = [self.dice.one(_KINDS) for _ in range(self.dice.one((1, 1, 2, 3)))]
        if self.at.database in ("txt", "bin"):
            kinds = ["text" if self.at.database == "txt" else "bytes", *kinds[1:]]
        count = self.dice.number(2, 3)
        sides: list[Part] = [self._columns_of_kinds(kinds) for _ in range(count)]
        words = [self.dice.weighted(((3.0, " UNION "), (3.0, " UNION ALL "), (0.5, " UNION DISTINCT "),
                                     (1.0, " EXCEPT "), (1.0, " INTERSECT "), (0.3, " EXCEPT ALL "),
                                     (0.3, " INTERSECT ALL "))) for _ in range(count - 1)]  # fmt: skip
        if self.dice.chance(0.3):
            sides = [piece("(", side, ")") for side in sides]
        parts: list[Part] = [sides[0]]
        for word, side in zip(words, sides[1:], strict=True):
            parts.append(optional(word, side))
        end: Part = ""
        if self.dice.chance(0.4):
            order = ", ".join(f"{i + 1}{self.dice.one(('', ' DESC'))}" for i in range(len(kinds)))
            end = optional(f" ORDER BY {order}", mark="order")
            if self.dice.chance(0.4):
                end = piece(end, optional(self.limit(), mark="limit"), simpler=("",))
        body = piece(*parts, end)
        if not end and self.dice.chance(0.1):
            return "select union", piece("SELECT COUNT(*) FROM (", body, ") AS d")
        return "select union", body

    def _columns_of_kinds(self, kinds: list[str], label: str = "") -> Part:
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        items: list[Part] = []
        for kind in kinds:
            fitting = [(s, c) for s in scope.sources for c in s.columns if c.kind == kind and c.exact]
            item: Part = self.dice.one(("1", "NULL", "'a'"))
            if fitting:
                item = self.columns.write(scope, *self.dice.one(fitting))
            items.append(piece(item, f" AS {label}") if label else item)
        if self.dice.chance(0.12) and kinds in (["int"], ["text"]):
            return piece("SELECT MAX(", *items, ")" + (f" AS {label}" if label else ""), source,
                         self.where(scope, terms)) if not label else piece("SELECT ", *items, source)  # fmt: skip
        return piece("SELECT ", listed(items, least=len(items)), source, self.where(scope, terms))

    # ── subqueries as values ──

    def of_subqueries(self) -> tuple[str, Part]:
        """Scalar subqueries in the select list, and at times in ORDER BY and WHERE."""
        scope = Scope()
        text, source = self.source(scope, self.table(("sharded", "sharded", "reference")))
        scope.sources.append(source)
        assert source.table is not None
        items: list[Part] = [f"{source.name}.{name}" for name in source.table.primary]
        for _ in range(self.dice.one((1, 1, 2))):
            kind = self.dice.one(("int", "int", "text", "dec"))
            query = self.subquery(Scope(outer=scope), f"one {kind}")
            items.append(self.dice.one((
                piece("(", query, ")"), piece("(", query, ") AS v"),
                piece("EXISTS (", self.subquery(Scope(outer=scope), ""), ")"),
                piece(self.columns.write(scope, source, source.table.primary[0]), " IN (",
                      self.subquery(Scope(outer=scope), source.table.column(source.table.primary[0]).kind), ")"),
                piece("COALESCE((", query, "), 'none')", simpler=(query,)),
            )))  # fmt: skip
        order = ", ".join(f"{source.name}.{name}" for name in source.table.primary)
        end: Part = ""
        if self.dice.chance(0.4):
            first = piece("(", self.subquery(Scope(outer=scope), "one int"), ")", self.dice.one((" DESC", "")), ", ")
            end = optional(" ORDER BY ", first if self.dice.chance(0.5) else "", order, mark="order")
            if self.dice.chance(0.4):
                end = piece(end, optional(self.limit(), mark="limit"), simpler=("",))
        return "select scalar subquery", piece("SELECT ", listed(items), " FROM ", text, self.where(scope, []), end)
