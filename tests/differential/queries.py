"""Plain SELECT statements: sources, joins, conditions, select lists, order and limit."""

from __future__ import annotations

from shardproxy.protocol.mysql.constants import FieldType
from tests.differential.conditions import CONSTANTS, Conditions
from tests.differential.dice import Situation
from tests.differential.literals import Literals
from tests.differential.pieces import Part, Piece, listed, optional, piece
from tests.differential.schema import TABLES, Column, Table
from tests.differential.scopes import Columns, Scope, Source, quoted_name

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
        if self.dice.chance(0.03):
            database = {"rng": "hsh", "hsh": "rng", "txt": "rng", "bin": "txt", "uni": "hsh"}[database]
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
        count = self.dice.weighted(((5.0, 1), (3.5, 2), (1.2, 3), (0.3, 4)))
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
        if column.kind in ("enum", "set", "bit", "year"):
            forms += [f"{name} + 0", f"CONCAT({name})", f"{name} = 2", f"GREATEST({name}, 'c')"]
        if column.kind == "json":
            forms += [f"JSON_EXTRACT({name}, '$.a')", f"JSON_LENGTH({name})", f"JSON_UNQUOTE({name})"]
        if column.kind in ("clock", "time"):
            forms += [f"HOUR({name})", f"TIME_FORMAT({name}, '%H:%i')", f"CAST({name} AS DATE) IS NULL"]
        if column.kind in ("date", "time"):
            forms += [f"YEAR({name})", f"{name} + INTERVAL 1 DAY"]
        if self.dice.chance(0.12):
            return piece("(", self.subquery(Scope(outer=scope), f"one {column.kind}"), ")", simpler=(name,))
        return self.dice.one(forms)

    # ── whole queries ──

    def order_and_limit(self, scope: Scope, limit: float = 0.4) -> Part:
        """ORDER BY without ties, sometimes with LIMIT; seldom a LIMIT alone."""
        total = scope.ordered_by(self.dice)
        if total is None:
            return ""
        for _ in range(self.dice.weighted(((3.0, 0), (5.0, 1), (2.0, 2)))):
            total.insert(0, self._order(scope))
        if self.dice.chance(0.15):
            total = [one if " " in one else f"{one} DESC" for one in total]
        order: Part = optional(" ORDER BY ", ", ".join(total), mark="order")
        if not self.dice.chance(limit):
            return order
        amount = self.limit()
        if self.dice.chance(0.08):
            return optional(amount, mark="limit")
        return piece(order, optional(amount, mark="limit"), simpler=("",))

    def limit(self) -> Part:
        """LIMIT with literals or parameters."""
        rows, offset = self.dice.one((0, 1, 2, 3, 5, 100)), self.dice.one((0, 1, 2, 7, 40))
        if self.at.prepared and self.dice.chance(0.5):
            first = self.literals.bind(FieldType.LONGLONG, rows, str(rows))
            second = self.literals.bind(FieldType.LONGLONG, offset, str(offset))
            return self.dice.one((piece(" LIMIT ", first), piece(" LIMIT ", first, " OFFSET ", second)))
        return self.dice.one((f" LIMIT {rows}", f" LIMIT {rows}", f" LIMIT {rows} OFFSET {offset}",
                              f" LIMIT {offset}, {rows}", " LIMIT 18446744073709551615 OFFSET 2"))  # fmt: skip

    def _order(self, scope: Scope) -> str:
        """One expression to order by."""
        source = self.dice.one(scope.sources)
        column = self.dice.one(source.columns)
        name = f"{quoted_name(source.name)}.{column.name}"
        end = self.dice.one((" DESC", "", " ASC", ""))
        if self.dice.chance(0.75):
            return name + end
        forms = [f"{name} IS NULL", f"LENGTH({name})", f"COALESCE({name}, 'b')", f"{name} IN (5, 'Ann')"]
        if column.kind in ("int", "dec", "float"):
            forms += [f"{name} % 3", f"ABS({name} % 100)", f"FLOOR({name} / 10)"]
        if column.kind == "text":
            forms += [f"LOWER({name})", f"LEFT({name}, 1)", f"CONVERT({name} USING utf8mb4) COLLATE utf8mb4_bin",
                      f"BINARY {name}", f"FIELD({name}, 'a', 'Ann', '5')"]  # fmt: skip
        if column.kind in ("date", "time"):
            forms += [f"MONTH({name})", f"DATE_FORMAT({name}, '%d')"]
        if column.kind in ("enum", "set"):
            forms += [f"{name} + 0", f"CONCAT({name})"]
        return self.dice.one(forms) + end

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
        name = CONSTANTS.get(kind, "1") if column is None else self.columns.write(scope, source, column)
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
                                   (0.2, "SELECT STRAIGHT_JOIN ")))  # fmt: skip
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
