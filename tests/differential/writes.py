"""INSERT, REPLACE, UPDATE and DELETE of every shape. What they store never depends on the order of rows."""

from __future__ import annotations

from tests.differential.pieces import Part, listed, optional, piece
from tests.differential.reads import Reads
from tests.differential.schema import Column, Table
from tests.differential.scopes import Scope, Source

_WRITTEN = ("sharded", "reference", "single")


class Writes(Reads):
    """Statements that change rows."""

    # ── INSERT ──

    def insert(self) -> tuple[str, Part]:
        table = self.table(_WRITTEN)
        verb = self.dice.weighted((
            (6.0, "INSERT INTO "), (1.0, "INSERT "), (1.5, "INSERT IGNORE INTO "), (1.5, "REPLACE INTO "),
            (0.3, "REPLACE "), (0.2, "INSERT LOW_PRIORITY INTO "), (0.2, "insert into "), (0.1,
            "INSERT HIGH_PRIORITY IGNORE "),
        ))  # fmt: skip
        label = "replace" if verb.startswith("REPLACE") else "insert ignore" if "IGNORE" in verb else "insert"
        name = self._name(table)
        if self.dice.chance(0.2):
            return f"{label} select", piece(verb, name, self._from_select(table, label))
        columns = self._columns(table)
        if self.dice.chance(0.12):
            pairs = [piece(c.name, " = ", self._new_value(table, c)) for c in columns]
            body: Part = piece(" SET ", listed(pairs))
        else:
            rows = self.dice.weighted(((5.0, 1), (2.0, 2), (1.0, 3), (0.3, 6)))
            body = self._values(table, columns, rows) if self.dice.chance(0.97) else self._many(table, columns)
        update: Part = ""
        if label == "insert" and self.dice.chance(0.25):
            label = "insert on duplicate"
            update = self._on_duplicate(table)
        returning = (
            optional(" RETURNING *")
            if self.at.mariadb and table.name != "stamps" and self.dice.chance(0.04) and not update
            else ""
        )
        return label, piece(verb, name, body, update, returning)

    def _name(self, table: Table) -> str:
        plain = f"{table.database}.{table.name}"
        if table.database == self.at.database and self.dice.chance(0.8):
            plain = table.name
        return f"`{plain}`" if "." not in plain and self.dice.chance(0.1) else plain

    def _columns(self, table: Table) -> list[Column]:
        """Columns to give: all, or some in another order. Seldom without the key."""
        if self.dice.chance(0.5):
            return list(table.columns)
        chosen = self.dice.some(table.columns, 1, len(table.columns))
        for needed in (table.key, *table.primary):
            if needed and table.column(needed) not in chosen and self.dice.chance(0.95):
                chosen.insert(self.dice.number(0, len(chosen)), table.column(needed))
        return chosen

    def _values(self, table: Table, columns: list[Column], count: int) -> Part:
        names = [self.dice.one((c.name, c.name, c.name, f"`{c.name}`", c.name.upper())) for c in columns]
        listing = f" ({', '.join(names)})"
        if columns == list(table.columns) and self.dice.chance(0.5):
            listing = ""
        rows = []
        for _ in range(count):
            cells = [self._new_value(table, c) for c in columns]
            rows.append(piece("(", listed(cells, least=len(cells)), ")"))
        word = self.dice.one((" VALUES ", " VALUES ", " VALUES", " VALUE ", " values "))
        return piece(listing, word, listed(rows))

    def _many(self, table: Table, columns: list[Column]) -> Part:
        """Many rows that look alike, and perhaps one that does not."""
        cells = [self._new_value(table, c) for c in columns]
        rows: list[Part] = [piece("(", listed(cells, least=len(cells)), ")")] * self.dice.number(17, 40)
        if self.dice.chance(0.5):
            other = [self._new_value(table, c) for c in columns]
            rows[self.dice.number(0, len(rows) - 1)] = piece("(", listed(other, least=len(other)), ")")
        return piece(f" ({', '.join(c.name for c in columns)}) VALUES ", listed(rows))

    def _new_value(self, table: Table, column: Column) -> Part:
        """A value to store. Keys are of few kinds, so that rows are met again."""
        if column.name == table.key:
            key = self.literals.key(near_home=self.dice.chance(0.8 if self.dice.chance(self.pinning) else 0.1))
            return self.literals.of_key(key, 0.12)
        if column.name == table.counting:
            number = str(self.dice.number(1, 40))
            return self.dice.one(("NULL", "0", "DEFAULT", "'0'", number, number))
        if column.name in table.primary:
            return self.dice.one(("1", "2", "14", "20", "21")) if column.kind == "int" else self.literals.value(column)
        if self.dice.chance(0.05):
            return "DEFAULT"
        if column.kind == "int" and self.dice.chance(0.06):
            return self.dice.one(("1 + 1", "ABS(-3)", "(SELECT 1)", "LENGTH('abc')", "5 DIV 2", "IF(1, 2, 3)"))
        return self.literals.value(column, storing=True)

    def _on_duplicate(self, table: Table) -> Part:
        columns = [c for c in table.columns if c.name not in table.primary] or list(table.columns)
        if self.dice.chance(0.06):
            columns = [c for c in table.columns if c.name in table.primary]
        changes = [self._change_of_duplicate(table, column) for column in self.dice.some(columns, 1, 2)]
        return optional(" ON DUPLICATE KEY UPDATE ", listed(changes))

    def _change_of_duplicate(self, table: Table, column: Column) -> Part:
        name = column.name
        forms: tuple[Part, ...] = (f"{name} = VALUES({name})", piece(f"{name} = ", self.literals.value(column)),
                                   f"{name} = {name}", f"{table.name}.{name} = NULL")  # fmt: skip
        return self.dice.one(forms)

    def _from_select(self, table: Table, label: str) -> Part:
        """(columns) SELECT …, the key taken from a table with the same key or given."""
        scope = Scope()
        source, terms = self._sources(scope)
        columns = self._columns(table)
        items: list[Part] = []
        for column in columns:
            fitting = [(s, c) for s in scope.sources for c in s.columns if c.kind == column.kind and c.exact]
            keyed = [(s, c) for s, c in fitting if s.key == c.name] if column.name == table.key else []
            if keyed and self.dice.chance(0.8):
                items.append(self.columns.write(scope, *self.dice.one(keyed)))
            elif fitting and column.name != table.key and self.dice.chance(0.6):
                items.append(self.columns.write(scope, *self.dice.one(fitting)))
            else:
                items.append(self._new_value(table, column))
        order = scope.ordered_by(self.dice) or [str(i + 1) for i in range(len(items))]
        return piece(f" ({', '.join(c.name for c in columns)}) SELECT ", listed(items, least=len(items)), source,
                     self.where(scope, terms), f" ORDER BY {', '.join(order)}" if order else "")  # fmt: skip

    def _sources(self, scope: Scope) -> tuple[Part, list[Part]]:
        """(FROM …, join conditions for WHERE): tables, or a query in their place."""
        if not self.dice.chance(0.2):
            return self.from_clause(scope, 2)
        body, columns, unique = self.block()
        scope.sources.append(Source("d", columns, None, unique=unique))
        return piece(" FROM (", body, ") AS d"), []

    # ── UPDATE ──

    def update(self) -> tuple[str, Part]:
        if self.dice.chance(0.22):
            return self._update_joined()
        if self.dice.chance(0.1):
            return self.move()
        scope = Scope()
        text, source = self.source(scope, self.table(_WRITTEN), aliases=0.25)
        scope.sources.append(source)
        verb = self.dice.weighted(((8.0, "UPDATE "), (1.0, "UPDATE IGNORE "), (0.2, "UPDATE LOW_PRIORITY "),
                                   (0.2, "update ")))  # fmt: skip
        changes = listed(self._assignments(scope, source))
        where = self._rows_of(scope, source)
        label = "update"
        end: Part = ""
        if self.dice.chance(0.12) and source.table is not None and " " not in text:
            label = "update limit"
            order = ", ".join(source.table.primary)
            end = optional(f" ORDER BY {order}{self.dice.one(('', ' DESC'))} LIMIT {self.dice.number(0, 2)}")
        return label, piece(verb, text, " SET ", changes, where, end)

    def move(self) -> tuple[str, Part]:
        """Gives a row, or a few, another shard key. No row takes another's place: the order of moves would show."""
        table = self.table(("sharded",))
        scope = Scope()
        text, source = self.source(scope, table, aliases=0.1)
        scope.sources.append(source)
        name = f"{source.name}.{table.key}"
        new: Part = self.literals.of_key(self.literals.key(near_home=False), 0.1)
        if isinstance(self.at.home, int) and self.dice.chance(0.4):
            new = f"{name} + {self.dice.one((10000, 77777))}"
            where = optional(f" WHERE {name} BETWEEN {self.dice.one((-6, 0, 3))} AND {self.dice.one((3, 9, 500))}")
            return "update key", piece("UPDATE ", text, f" SET {table.key} = ", new, where)
        others = [c for c in table.columns if c.name != table.key and c.name not in table.primary]
        more: Part = ""
        if others and self.dice.chance(0.4):
            column = self.dice.one(others)
            more = optional(f", {column.name} = ", self.literals.value(column, storing=True))
        where = piece(" WHERE ", self.conditions.pinned(scope, source, 0.05))
        if len(table.primary) > 1 and self.dice.chance(0.5):
            order = ", ".join(table.primary)
            where = piece(where, optional(f" ORDER BY {order} LIMIT 1") if " " not in text else "")
        return "update key", piece("UPDATE ", text, f" SET {table.key} = ", new, more, where)

    def _rows_of(self, scope: Scope, source: Source) -> Part:
        if source.key and self.dice.chance(0.25):
            return piece(" WHERE ", self.conditions.about_key(scope, source, 2))
        return self.where(scope, [])

    def _assignments(self, scope: Scope, source: Source) -> list[Part]:
        table = source.table
        assert table is not None
        free = [c for c in table.columns if c.name not in table.primary and c.name != table.counting]
        if not free or self.dice.chance(0.05):
            free = list(table.columns)
        changes: list[Part] = []
        for column in self.dice.some(free, 1, 2):
            name = self.columns.write(scope, source, column)
            new: Part = self.literals.value(column, storing=True)
            if column.name == table.key:
                new = self.literals.of_key(self.literals.key(), 0.2)
            elif column.kind in ("int", "dec") and column.name != "uid" and self.dice.chance(0.3):
                new = f"{name} + 1"
            elif column.kind in ("int", "dec") and column.name != "uid" and self.dice.chance(0.12):
                inner = Scope(outer=scope)
                inner_text, other = self.source(inner, self.table(tuple(k for k in ("sharded", "reference"))))
                if other.table is not table:
                    inner.sources.append(other)
                    on = self.conditions.joined(inner, source, other)
                    new = piece("(SELECT COUNT(*) FROM ", inner_text, " WHERE ", on, ")", simpler=("1",))
            elif self.dice.chance(0.08):
                new = "DEFAULT"
            elif column.kind == "int" and self.dice.chance(0.1):
                new = piece("CASE WHEN ", self.conditions.any(scope, 1), " THEN 1 ELSE 2 END", simpler=("1",))
            changes.append(piece(name, " := " if self.dice.chance(0.02) else " = ", new))
        return changes

    def _update_joined(self) -> tuple[str, Part]:
        """Several tables; each row's new value follows from the row alone."""
        scope = Scope()
        first, source = self.source(scope, self.table(_WRITTEN))
        scope.sources.append(source)
        text, right = self.source(scope, self.table(_WRITTEN))
        condition = self._join_condition(scope, right, [source])
        target = source if self.dice.chance(0.8) else right
        table = target.table
        assert table is not None
        columns = [c for c in table.columns if c.name not in table.primary and c.name != table.counting]
        if not columns:
            return self.update()
        column = self.dice.one(columns)
        change = piece(f"{target.name}.{column.name} = ", self.literals.value(column))
        if self.dice.chance(0.3):
            where = self.where(scope, [condition])
            return "update joined", piece("UPDATE ", first, ", ", text, " SET ", change, where)
        side = self.dice.one((" JOIN ", " INNER JOIN ", " LEFT JOIN "))
        return "update joined", piece("UPDATE ", first, side, text, " ON ", condition, " SET ", change,
                                      self.where(scope, []))  # fmt: skip

    # ── DELETE ──

    def delete(self) -> tuple[str, Part]:
        if self.dice.chance(0.25):
            return self._delete_joined()
        scope = Scope()
        text, source = self.source(scope, self.table(_WRITTEN), aliases=0.08)
        scope.sources.append(source)
        verb = self.dice.weighted(((8.0, "DELETE FROM "), (0.4, "DELETE IGNORE FROM "), (0.4, "DELETE QUICK FROM "),
                                   (0.2, "delete from ")))  # fmt: skip
        where = self._rows_of(scope, source)
        end: Part = ""
        label = "delete"
        if self.dice.chance(0.12) and source.table is not None and " " not in text:
            label = "delete limit"
            order = ", ".join(source.table.primary)
            end = optional(f" ORDER BY {order}{self.dice.one(('', ' DESC'))} LIMIT {self.dice.number(0, 2)}")
        return label, piece(verb, text, where, end)

    def _delete_joined(self) -> tuple[str, Part]:
        scope = Scope()
        first, source = self.source(scope, self.table(_WRITTEN))
        scope.sources.append(source)
        text, right = self.source(scope, self.table(_WRITTEN))
        condition = self._join_condition(scope, right, [source])
        targets = self.dice.weighted(((4.0, source.name), (1.0, right.name), (1.0, f"{source.name}, {right.name}")))
        tables = piece(first, self.dice.one((" JOIN ", " LEFT JOIN ")), text, " ON ", condition)
        where = self.where(scope, [])
        if self.dice.chance(0.4):
            return "delete joined", piece("DELETE FROM ", targets, " USING ", tables, where)
        star = ".*" if self.dice.chance(0.1) and "," not in targets else ""
        return "delete joined", piece(f"DELETE {targets}{star} FROM ", tables, where)

    def any_write(self) -> tuple[str, Part]:
        """A write of any shape."""
        make = self.dice.weighted(((4.5, self.insert), (3.5, self.update), (2.0, self.delete)))
        return make()
