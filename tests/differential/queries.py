"""SELECT statements of every shape."""

from __future__ import annotations

from tests.differential.conditions import Conditions
from tests.differential.dice import Situation
from tests.differential.literals import Literals
from tests.differential.pieces import Part, Piece, listed, optional, piece
from tests.differential.schema import TABLES, Column, Table
from tests.differential.scopes import Columns, Scope, Source, of_kind, quoted_name

_ALIASES = ("a", "b", "c", "t1", "u", "o", "x_y")


class Queries:
    """pinning: chance that a sharded source of a statement gets a condition `key = home`."""

    def __init__(self, situation: Situation, pinning: float) -> None:
        self.at = situation
        self.dice = situation.dice
        self.literals = Literals(situation)
        self.columns = Columns(situation.dice, situation.ansi_quotes)
        self.conditions = Conditions(situation, self.literals, self.subquery)
        self.pinning = pinning
        self.subqueries = 0

    # ── FROM ──

    def table(self, kinds: tuple[str, ...] = ()) -> Table:
        """A table of the default schema mostly; of these kinds when given."""
        database = self.at.database
        if self.dice.chance(0.02):
            database = {"rng": "hsh", "hsh": "rng", "txt": "rng", "bin": "txt"}[database]
        weights = {"sharded": 5.0, "reference": 1.5, "single": 0.7, "view": 0.1}
        tables = [t for t in TABLES if t.database == database and (not kinds or t.kind in kinds)]
        if "reference" not in kinds or "single" not in kinds:
            tables = [t for t in tables if t.name != "stamps"]  # its clock differs between the sides: only for writes
        return self.dice.weighted([(weights[t.kind] * (2 if t.name in ("users", "orders") else 1), t) for t in tables])

    def source(self, scope: Scope, table: Table | None = None, aliases: float = 0.5) -> tuple[str, Source]:
        """(text in FROM, source) of a table, under a name that is not used yet."""
        table = table or self.table()
        used = {s.name for s in scope.sources}
        text = table.name if table.database == self.at.database and self.dice.chance(0.9) else (
            f"{table.database}.{table.name}")  # fmt: skip
        name = table.name
        alias = self.dice.chance(aliases) or name in used
        if alias:
            free = [a for a in (*_ALIASES, *(t.name for t in TABLES if t.database == table.database)) if a not in used]
            name = self.dice.one(free[:7] if self.dice.chance(0.85) else free)
            text += self.dice.one((" ", " AS ", " ")) + name
        elif self.dice.chance(0.04):
            text = f"`{table.name}`" if "." not in text else f"`{table.database}`.`{table.name}`"
        home = "" if alias else f"{table.database}.{table.name}"
        return text, Source(name, table.columns, table, home)

    def from_clause(self, scope: Scope, most: int) -> tuple[Part, list[Part]]:
        """(FROM …, conditions that belong to its joins but stand in WHERE). Fills the scope's sources."""
        text, source = self.source(scope)
        scope.sources.append(source)
        count = self.dice.weighted(((6.0, 1), (3.0, 2), (1.0, 3)))
        parts: list[Part] = [text]
        where: list[Part] = []
        comma = self.dice.chance(0.2)
        for _ in range(min(count, most) - 1):
            text, right = self.source(scope)
            if comma:
                where.append(self._join_condition(scope, right, list(scope.sources)))
                parts.append(", " + text)
            else:
                parts.append(self._join(scope, text, right))
        return piece(" FROM ", *parts), where

    def _join_condition(self, scope: Scope, right: Source, lefts: list[Source]) -> Part:
        scope.sources.append(right)
        sharded = [s for s in lefts if s.key] or lefts
        return self.conditions.joined(scope, self.dice.one(sharded), right)

    def _join(self, scope: Scope, text: str, right: Source) -> Part:
        lefts = list(scope.sources)
        common = {c.name for c in right.columns} & {c.name for s in lefts for c in s.columns}
        form = self.dice.number(0, 19)
        side = self.dice.weighted(((4.0, " JOIN "), (1.0, " INNER JOIN "), (3.0, " LEFT JOIN "), (1.0, " RIGHT JOIN "),
                                   (0.5, " LEFT OUTER JOIN "), (0.4, " STRAIGHT_JOIN ")))  # fmt: skip
        if form == 0 and common:
            scope.merged |= common
            kind = self.dice.one((" NATURAL JOIN ", " NATURAL LEFT JOIN ", " NATURAL RIGHT JOIN "))
            scope.sources.append(right)
            return optional(kind, text)
        if form <= 2 and "STRAIGHT" not in side:
            using = sorted(c for c in common if sum(any(x.name == c for x in s.columns) for s in lefts) == 1)
            if using:
                chosen = "uid" if "uid" in using else self.dice.one(using)
                scope.merged.add(chosen)
                scope.sources.append(right)
                return optional(side, text, f" USING ({chosen})")
        if form == 3:
            scope.sources.append(right)
            return optional(" CROSS JOIN ", text)
        on = self._join_condition(scope, right, lefts)
        if self.dice.chance(0.3):
            on = piece(on, " AND ", self.conditions.any(scope, 1), simpler=(on,))
        elif right.key and self.dice.chance(0.25):
            on = piece(on, " AND ", self.conditions.pinned(scope, right), simpler=(on,))
        return optional(side, text, " ON ", on)

    def where(self, scope: Scope, terms: list[Part]) -> Part:
        """The WHERE clause, perhaps empty: join conditions, pinned keys, and others."""
        terms = list(terms)
        for source in scope.sources:
            if source.key and isinstance(self._key_of(source), type(self.at.home)) and self.dice.chance(self.pinning):
                terms.insert(self.dice.number(0, len(terms)), self.conditions.pinned(scope, source))
                if self.dice.chance(0.6):
                    break  # the others follow by their joins
        if self.dice.chance(0.55):
            terms.insert(self.dice.number(0, len(terms)), self.conditions.any(scope))
        return optional(" WHERE ", listed(terms, " AND ")) if terms else ""

    def _key_of(self, source: Source) -> int | str | bytes:
        kind = next(c.kind for c in source.columns if c.name == source.key)
        return 0 if kind == "int" else "" if kind == "text" else b""

    # ── select lists ──

    def items(self, scope: Scope) -> Part:
        """A plain select list."""
        if self.dice.chance(0.3):
            return "*"
        items = [self._item(scope) for _ in range(self.dice.number(1, 4))]
        return listed(items)

    def _item(self, scope: Scope) -> Part:
        source = self.dice.one(scope.sources)
        if self.dice.chance(0.1):
            return f"{quoted_name(source.name)}.*"
        part = self.scalar(scope, 1)
        if self.dice.chance(0.3):
            alias = self.dice.one(("v", "uid", "sku", "name", "`a b`", "oid", "users", "'text'", "n"))
            return piece(part, self.dice.one((" AS ", " AS ", " ")), alias, simpler=(part,))
        return part

    def scalar(self, scope: Scope, depth: int) -> Part:
        """A value per row."""
        source = self.dice.one(scope.sources)
        column = self.dice.one(source.columns)
        name = self.columns.write(scope, source, column)
        if depth <= 0 or self.dice.chance(0.6):
            return name
        other = self.scalar(scope, depth - 1)
        forms: list[Part] = [
            f"COALESCE({name}, NULL)", f"{name} IS NULL", f"HEX({name})", f"LENGTH({name})", f"({name})", "1", "NULL",
            "'it''s'", "5.50", "CURDATE() > '2020-01-01'", "x'41'", "TRUE", "DATABASE()", "@@sql_mode", "@@autocommit",
            piece("CASE WHEN ", self.conditions.any(scope, 1), f" THEN {name} ELSE ", other, " END", simpler=(name,)),
            piece("IF(", self.conditions.any(scope, 1), f", {name}, NULL)", simpler=(name,)),
            piece("(", self.conditions.any(scope, 1), ")", simpler=(name,)),
        ]  # fmt: skip
        if column.kind in ("int", "dec"):
            forms += [f"{name} % 7", f"SIGN({name})", f"{name} IN (1, 2, NULL)", f"{name} & 3"]
        if column.kind == "text":
            forms += [f"UPPER({name})", f"CONCAT({name}, '!')", f"{name} LIKE 'a%'", f"{name} || 'x'", f"CRC32({name})",
                      f"WEIGHT_STRING({name})", f"LEFT({name}, 2)"]  # fmt: skip
        if column.kind in ("date", "time"):
            forms += [f"YEAR({name})", f"{name} + INTERVAL 1 DAY"]
        if self.dice.chance(0.12):
            return piece("(", self.subquery(Scope(outer=scope), f"one {column.kind}"), ")", simpler=(name,))
        return self.dice.one(forms)

    def aggregate(self, scope: Scope) -> Part:
        """An aggregate whose answer does not depend on the order of rows or on which of equal texts is met first."""
        source = self.dice.one(scope.sources)
        numbers = of_kind(source, ("int", "dec"))
        # Not an unsigned key: MariaDB gives 0 for MIN(uid) … WHERE uid = -5 when there is a row with 0.
        exact = [c for c in source.columns if c.exact and (source.table is None or source.table.name != "huge")]
        forms = ["COUNT(*)", "COUNT(*)"]
        name = self.columns.write(scope, source, self.dice.one(source.columns))
        forms.append(f"COUNT({name})")
        if exact:
            one = self.columns.write(scope, source, self.dice.one(exact))
            forms += [f"MIN({one})", f"MAX({one})", f"COUNT(DISTINCT {one})"]
        if numbers:
            one = self.columns.write(scope, source, self.dice.one(numbers))
            forms += [f"SUM({one})", f"SUM(DISTINCT {one})", f"BIT_XOR({one})", f"AVG({one})", f"SUM({one} > 3)"]
        order = scope.ordered_by(self.dice)
        if order and exact:
            forms.append(f"GROUP_CONCAT({name} ORDER BY {', '.join(order)} SEPARATOR '|')")
        return self.dice.one(forms)

    # ── whole queries ──

    def order_and_limit(self, scope: Scope, limit: float = 0.4) -> Part:
        """ORDER BY without ties, sometimes with LIMIT; seldom a LIMIT alone."""
        total = scope.ordered_by(self.dice)
        if total is None:
            return ""
        if self.dice.chance(0.6):
            source = self.dice.one(scope.sources)
            first = f"{quoted_name(source.name)}.{self.dice.one(source.columns).name}"
            total = [first + self.dice.one((" DESC", "", " ASC")), *total]
        order: Part = optional(" ORDER BY ", ", ".join(total), mark="order")
        amount = self.dice.one((" LIMIT 1", " LIMIT 2", " LIMIT 3 OFFSET 1", " LIMIT 1, 2", " LIMIT 0", " LIMIT 100"))
        if not self.dice.chance(limit):
            return order
        if self.at.prepared and self.dice.chance(0.5):
            amount = " LIMIT 2"
        if self.dice.chance(0.08):
            return optional(amount, mark="limit")
        return piece(order, optional(amount, mark="limit"), simpler=("",))

    def subquery(self, scope: Scope, wanted: str) -> Piece:
        """A query for use in an expression of `scope.outer`. wanted: a column kind, "one KIND" for a single row, ""
        for anything."""
        self.subqueries += 1
        outer = scope.outer
        single = wanted.startswith("one ")
        kind = wanted.removeprefix("one ")
        text, source = self.source(scope)
        scope.sources.append(source)
        column = self._column_of(source, kind)
        name = "1" if column is None else self.columns.write(scope, source, column)
        if single:
            if column is not None and column.exact and self.dice.chance(0.5):
                name = f"{self.dice.one(('MIN', 'MAX'))}({name})"
            else:
                name = "COUNT(*)"
        terms: list[Part] = []
        if outer is not None and outer.sources and self.dice.chance(0.7):
            near = [s for s in outer.sources if s.key] or outer.sources
            terms.append(self.conditions.joined(scope, self.dice.one(near), source))
        elif source.key and self.dice.chance(max(self.pinning, 0.3)):
            terms.append(self.conditions.pinned(scope, source))
        if self.dice.chance(0.3) and self.subqueries < 4:
            terms.append(self.conditions.any(scope, 1))
        where = optional(" WHERE ", listed(terms, " AND ")) if terms else ""
        return piece(self.dice.one(("SELECT ", "SELECT ", "select ")), name, " FROM ", text, where)

    def _column_of(self, source: Source, kind: str) -> Column | None:
        fitting = [c for c in source.columns if not kind or c.kind == kind]
        if source.key and self.dice.chance(0.5):
            fitting = [c for c in fitting if c.name == source.key] or fitting
        return self.dice.one(fitting) if fitting else None

    def plain(self) -> tuple[str, Part]:
        """(label, SELECT … FROM … WHERE …), sometimes with order, limit and lock."""
        scope = Scope()
        source, terms = self.from_clause(scope, 3)
        label = "select" if len(scope.sources) == 1 else "select join"
        where = self.where(scope, terms)
        before = self.subqueries
        items = self.items(scope)
        end: Part = self.order_and_limit(scope) if self.dice.chance(0.35) else ""
        lock: Part = ""
        if self.dice.chance(0.08):
            label = "select lock"
            lock = optional(self.dice.one((" FOR UPDATE", " LOCK IN SHARE MODE")))
        elif self.subqueries or before:
            label = "select subquery"
        having: Part = ""
        if self.dice.chance(0.04):
            having = optional(self.dice.one((" HAVING 1", " HAVING uid = 5", " HAVING COUNT(*) > 0")))
        verb = self.dice.weighted(((9.0, "SELECT "), (0.4, "SELECT ALL "), (0.4, "SELECT SQL_NO_CACHE "),
                                   (0.3, "select\n"), (0.3, "/* uid = 1 */ SELECT "), (0.2, "(SELECT "), (0.2,
                                   "SELECT HIGH_PRIORITY "),
                                   (0.2, "SELECT STRAIGHT_JOIN "), (0.05, "SELECT SQL_CALC_FOUND_ROWS ")))  # fmt: skip
        close = ")" if verb == "(SELECT " else ""
        return label, piece(verb, items, source, where, having, end, lock, close)

    def sharp_where(self) -> tuple[str, Part]:
        """All rows of one sharded table for which an expression about its key holds: shows any row lost or doubled."""
        scope = Scope()
        text, source = self.source(scope, self.table(("sharded",)), aliases=0.2)
        scope.sources.append(source)
        condition = self.conditions.about_key(scope, source, 3)
        tail = self.dice.one(("", "", "", " /*! OR 1 = 1 */", " -- x\n OR 1 = 1", " # AND 0\n", " /*!50000 AND 1 */",
                              " /*M! OR 1 = 1 */", " /* OR 1 = 1 */"))  # fmt: skip
        return "select sharp", piece("SELECT * FROM ", text, " WHERE ", condition, optional(tail))

    def sharp_join(self) -> tuple[str, Part]:
        """Sharded tables joined by their keys, with conditions on keys in ON and WHERE, and nothing else."""
        scope = Scope()
        text, source = self.source(scope, self.table(("sharded",)))
        scope.sources.append(source)
        parts: list[Part] = [text]
        for _ in range(self.dice.one((1, 1, 2))):
            text, right = self.source(scope, self.table(("sharded", "sharded", "sharded", "reference")))
            lefts = [s for s in scope.sources if s.key] or list(scope.sources)
            scope.sources.append(right)
            on = self.conditions.joined(scope, self.dice.one(lefts), right)
            if self.dice.chance(0.5):
                about = self.dice.one([s for s in scope.sources if s.key] or [right])
                extra = self.conditions.about_key(scope, about, 1)
                on = piece(on, self.dice.one((" AND ", " AND ", " OR ")), extra, simpler=(on,))
            side = self.dice.one((" LEFT JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " JOIN ", " STRAIGHT_JOIN "))
            parts.append(optional(side, text, " ON ", on))
        terms: list[Part] = []
        for source in self.dice.some([s for s in scope.sources if s.key] or scope.sources, 0, 2):
            name = self.columns.write(scope, source, source.key or source.columns[0])
            null = piece(name, self.dice.one((" IS NULL", " IS NOT NULL")))
            terms.append(
                null if self.dice.chance(0.3) or not source.key else self.conditions.about_key(scope, source, 1)
            )
        where = optional(" WHERE ", listed(terms, self.dice.one((" AND ", " OR ")))) if terms else ""
        items = listed([f"{quoted_name(s.name)}.{s.key or s.columns[0].name}" for s in scope.sources])
        return "select sharp join", piece("SELECT ", items, " FROM ", *parts, where)

    def sharp_subquery(self) -> tuple[str, Part]:
        """Rows of a sharded table that have, or have not, a fellow elsewhere."""
        scope = Scope()
        text, source = self.source(scope, self.table(("sharded",)))
        scope.sources.append(source)
        inner = Scope(outer=scope)
        inner_text, other = self.source(inner, self.table(("sharded",)))
        inner.sources.append(other)
        terms: list[Part] = []
        if self.dice.chance(0.7):
            terms.append(self.conditions.joined(inner, source, other))
        if self.dice.chance(0.5):
            about = self.dice.one((source, other))
            terms.append(self.conditions.about_key(inner, about, 1))
        where = optional(" WHERE ", listed(terms, self.dice.one((" AND ", " AND ", " OR ")))) if terms else ""
        fitting = [c for c in other.columns if c.kind == source.columns[0].kind]
        column = (
            other.name + "." + (other.key if self.dice.chance(0.6) else self.dice.one(fitting).name) if fitting else "1"
        )
        query = piece("SELECT ", column, " FROM ", inner_text, where)
        key = self.columns.write(scope, source, source.key)
        count = piece("(SELECT COUNT(*) FROM ", inner_text, where, ")", self.dice.one((" = 0", " > 0", " = 1")))
        condition = self.dice.one((piece("EXISTS (", query, ")"), piece("NOT EXISTS (", query, ")"), count,
                                   piece(key, " IN (", query, ")"), piece(key, " NOT IN (", query, ")")))  # fmt: skip
        if self.dice.chance(0.3):
            word = self.dice.one((" AND ", " OR "))
            condition = piece(condition, word, self.conditions.about_key(scope, source, 1), simpler=(condition,))
        return "select sharp subquery", piece(f"SELECT {quoted_name(source.name)}.* FROM ", text, " WHERE ", condition)

    def distinct(self) -> tuple[str, Part]:
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        exact = [(s, c) for s in scope.sources for c in s.columns if c.exact]
        names = [self.columns.write(scope, s, c) for s, c in self.dice.some(exact, 1, 3)]
        where = self.where(scope, terms)
        return "select distinct", piece(self.dice.one(("SELECT DISTINCT ", "SELECT DISTINCTROW ")), ", ".join(names),
                                        source, where)  # fmt: skip

    def aggregated(self) -> tuple[str, Part]:
        """Aggregates over everything."""
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        items = listed([self.aggregate(scope) for _ in range(self.dice.number(1, 3))])
        where = self.where(scope, terms)
        having = optional(" HAVING COUNT(*) > 1") if self.dice.chance(0.15) else ""
        return "select aggregate", piece("SELECT ", items, source, where, having)

    def grouped(self) -> tuple[str, Part]:
        """GROUP BY of exact columns."""
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        exact = [(s, c) for s in scope.sources for c in s.columns if c.exact]
        names = [self.columns.write(scope, s, c) for s, c in self.dice.some(exact, 1, 2)]
        if self.dice.chance(0.5):
            keyed = [s for s in scope.sources if s.key]
            if keyed:
                names[0] = self.columns.write(scope, keyed[0], keyed[0].key)
        group = ", ".join(dict.fromkeys(names))
        where = self.where(scope, terms)
        items = listed([group, *(self.aggregate(scope) for _ in range(self.dice.number(1, 2)))])
        having = ""
        if self.dice.chance(0.3):
            having = self.dice.one((" HAVING COUNT(*) > 1", " HAVING n > 0", f" HAVING {names[0]} = 5", " HAVING 0"))
        end: Part = optional(f" ORDER BY {group}", mark="order") if self.dice.chance(0.3) else ""
        rollup = optional(" WITH ROLLUP") if self.dice.chance(0.05) and not end else ""
        return "select group", piece(
            "SELECT ", items, source, where, " GROUP BY ", group, rollup, optional(having), end
        )

    def windowed(self) -> tuple[str, Part]:
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        order = ", ".join(scope.ordered_by(self.dice) or ["1"])
        exact = [(s, c) for s in scope.sources for c in s.columns if c.exact]
        by = self.columns.write(scope, *self.dice.one(exact))
        number = [(s, c) for s in scope.sources for c in of_kind(s, ("int", "dec"))]
        value = self.columns.write(scope, *self.dice.one(number)) if number else "1"
        whole = f"(PARTITION BY {by} ORDER BY {order})"
        over = self.dice.one((f"(ORDER BY {order})", whole, f"(PARTITION BY {by})", "()"))
        call = self.dice.one(("COUNT(*)", f"SUM({value})")) if "ORDER" not in over else self.dice.one((
            "ROW_NUMBER()", "RANK()", f"LAG({value})", f"SUM({value})", f"FIRST_VALUE({value})", "NTILE(2)",
        ))  # fmt: skip
        where = self.where(scope, terms)
        items = listed([self.scalar(scope, 0), f"{call} OVER {over} AS w"])
        return "select window", piece("SELECT ", items, source, where)

    def union(self) -> tuple[str, Part]:
        """A set operation over queries with one exact column each."""
        kind = self.dice.one(("int", "int", "text"))
        sides: list[Part] = [self._single_column(kind) for _ in range(self.dice.number(2, 3))]
        word = self.dice.one((" UNION ", " UNION ALL ", " UNION DISTINCT ", " EXCEPT ", " INTERSECT "))
        if self.dice.chance(0.25):
            sides = [piece("(", side, ")") for side in sides]
        end: Part = optional(self.dice.one((" ORDER BY 1", " ORDER BY 1 DESC"))) if self.dice.chance(0.3) else ""
        return "select union", piece(listed(sides, word, 1), end)

    def _single_column(self, kind: str) -> Part:
        scope = Scope()
        source, terms = self.from_clause(scope, 2)
        fitting = [(s, c) for s in scope.sources for c in s.columns if c.kind == kind and c.exact]
        item = self.columns.write(scope, *self.dice.one(fitting)) if fitting else self.dice.one(("1", "NULL", "'a'"))
        return piece("SELECT ", item, source, self.where(scope, terms))

    def derived(self) -> tuple[str, Part]:
        """A subquery in FROM or a common table expression, alone or joined to a table."""
        scope = Scope()
        inner = Scope()
        text, table_source = self.source(inner, self.table(("sharded", "reference")))
        inner.sources.append(table_source)
        body = piece("SELECT * FROM ", text, self.where(inner, []))
        source = Source("d", table_source.columns, None)
        form = self.dice.number(0, 2)
        scope.sources.append(source)
        joined: Part = ""
        if self.dice.chance(0.4):
            right_text, right = self.source(scope)
            scope.sources.append(right)
            condition: Part = "1 = 1"
            if right.key and table_source.key:
                condition = f"d.{table_source.key} = {right.name}.{right.key}"
            joined = optional(self.dice.one((" JOIN ", " LEFT JOIN ")), right_text, " ON ", condition)
        where = self.where(scope, []) if len(scope.sources) > 1 else optional(" WHERE ", self.conditions.any(scope, 1))
        items = self.items(scope) if self.dice.chance(0.7) else "COUNT(*)"
        if form == 0:
            return "select derived", piece("SELECT ", items, " FROM (", body, ") AS d", joined, where)
        name = "d"
        if form == 1 and self.dice.chance(0.2):
            return "select cte", piece("WITH d AS (", body, ") SELECT ", items, f" FROM {name}", joined, where,
                                       optional(" UNION ALL SELECT ", items, f" FROM {name}"))  # fmt: skip
        return "select cte", piece("WITH d AS (", body, ") SELECT ", items, f" FROM {name}", joined, where)

    def any_query(self) -> tuple[str, Part]:
        """A query of any shape."""
        make = self.dice.weighted((
            (8.0, self.plain), (0.8, self.distinct), (2.0, self.aggregated), (1.2, self.grouped), (0.8, self.windowed),
            (0.8, self.union), (1.0, self.derived), (3.0, self.sharp_where), (2.5, self.sharp_join),
            (2.0, self.sharp_subquery),
        ))  # fmt: skip
        return make()
