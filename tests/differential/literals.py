"""Values as people, drivers and attackers write them: plain forms mostly, every odd form sometimes."""

from __future__ import annotations

from decimal import Decimal

from shardproxy.protocol.mysql.constants import FieldType
from shardproxy.protocol.mysql.values import DateTime, Time, Value
from tests.differential.dice import Situation
from tests.differential.pieces import Bound, Part, piece
from tests.differential.schema import BYTES, DOCS, INT_KEYS, TEXTS, Column

_DATES = ("1950-01-15", "1953-04-15", "1960-02-15", "2024-01-05", "0000-00-00")
_TIMES = ("2024-01-01 10:00:00.000", "2024-01-05 10:00:00.400", "2024-01-09")
_OF_KIND = {
    "clock": ("00:00:30.00", "10:02:30.20", "-05:01:30.10", "25:05:30.50"),
    "enum": ("red", "green", "Blue", "RED"),
    "set": ("", "x", "x,c", "b,c", "c,b"),
    "json": DOCS,
}
_STRINGS = (FieldType.VAR_STRING, FieldType.STRING, FieldType.VARCHAR, FieldType.BLOB, FieldType.LONG_BLOB)


class Literals:
    """Literals for a situation. `odd`: chance of an odd form for a key."""

    def __init__(self, situation: Situation, odd: float = 0.25) -> None:
        self.at = situation
        self.dice = situation.dice
        self.odd = odd

    def quoted(self, text: str) -> str:
        """A '…' string of the situation's sql_mode."""
        if self.at.latin1:
            text = text.encode("latin1", "replace").decode("latin1")
        if not self.at.no_backslash:
            text = text.replace("\\", "\\\\")
        if not self.at.no_backslash and self.dice.chance(0.1):
            return "'" + text.replace("'", "\\'") + "'"
        return "'" + text.replace("'", "''") + "'"

    def bind(self, kind: int, value: Value, plain: str, unsigned: bool = False) -> Bound:
        return Bound(int(kind), unsigned, value, plain)

    # ── keys ──

    def key(self, near_home: bool = True) -> int | str | bytes:
        """A key of the home's type: the home itself mostly, else any, also one that no row has."""
        home = self.at.home
        if near_home and self.dice.chance(0.75):
            return home
        if isinstance(home, int):
            return self.dice.one(INT_KEYS) if self.dice.chance(0.9) else self.dice.number(-10, 3000)
        return self.dice.one(TEXTS) if isinstance(home, str) else self.dice.one(BYTES)

    def of_key(self, key: int | str | bytes, odd: float | None = None) -> Part:
        """A literal or parameter for a key."""
        strange = self.dice.chance(self.odd if odd is None else odd)
        if self.at.prepared and self.dice.chance(0.8):
            return self._bound_key(key, strange)
        if isinstance(key, int):
            return self._odd_int(key) if strange else str(key)
        if isinstance(key, bytes):
            return self._odd_bytes(key) if strange else f"x'{key.hex()}'"
        return self._odd_text(key) if strange else self.quoted(key)

    def _odd_int(self, key: int) -> Part:
        size = abs(key)
        sign = "-" if key < 0 else ""
        digits = f"{size:x}"
        even = digits if len(digits) % 2 == 0 else "0" + digits
        forms = [
            f"'{key}'", f"'{key}'", f"{key}.0", f"{key}e0", f"{sign}0x{even}", f"{sign}x'{even}'", f"{sign}0b{size:b}",
            f"{sign}b'{size:b}'", f"{sign}0{size}", f"'{sign}0{size}'", f"' {key}'", f"'{key} '", f"'{key}abc'",
            f"N'{key}'", f"_utf8mb4'{key}'", f"'{key}' ''", f"'{sign}' '{size}'", f"+{size}", f"- {key}", f"-({-key})",
            f"{key}+0", f"({key})", "NULL", "TRUE", "FALSE", f"CAST({key} AS SIGNED)", f"CAST('{key}' AS CHAR)",
            f"{key}.4", f"{key - 1}.9999", f"{key}{'0' * 30}", "DATE'2024-01-01'", f'"{key}"', f"/**/{key}",
            f"{key}/*x*/", f"/*!{key}*/", f"/*!50000 {key} */", f"{sign}.{size}e{len(str(size))}", f"{key}.",
            f"'{key}.0'", f"'{key}e0'", f"'+{size}'", f"{key} COLLATE utf8mb4_bin", f"!{size}", f"~{size}", f"{key}|0",
            f"{key} DIV 1", f"'{key}' COLLATE utf8mb4_bin", f"_binary'{key}'", f"(SELECT {key})", "DEFAULT",
            f"IF(1, {key}, 0)", f"COALESCE(NULL, {key})", f"{key}.0000000000000000000001", "18446744073709551616",
            f"{key}--5", f"{key} -- 5\n", f"{key} - 0", f"{key}/**/-0", f"{key}*1", f"{key} # x\n", f"{key}-(-1)",
            f"{key}^0",
            f"{key} IS NOT NULL", f"{key} LIKE '{key}'", f"{key} IN (0, 1)", f"{key} = 1", f"{key} > 0", f"{key} <=> 1",
            f"'{key}\\0'", f"'\\t{key}'", f"{key}e-1", f"1{key}abc", "''", "'abc'", f"{sign}{size}.0e0", "x''", "1=1",
        ]  # fmt: skip
        return piece(self.dice.one(forms), simpler=(str(key),))

    def _odd_text(self, key: str) -> Part:
        plain = self.quoted(key)
        raw = key.encode().hex()
        forms = [
            f"N{plain}", f"n{plain}", f"_utf8mb4{plain}", f"_utf8mb4 {plain}", f"_latin1{plain}", f"_binary{plain}",
            f"{plain} ''", f"'' {plain}", f"x'{raw}'", f"_utf8mb4 x'{raw}'", f"0x{raw or '00'}",
            self.quoted(key + " "), self.quoted(key + "  "), self.quoted(key.upper()), self.quoted(key.lower()),
            self.quoted(" " + key), self.quoted(key + "\t"), self.quoted(key + "\0"), f"{plain} COLLATE utf8mb4_bin",
            f"{plain} COLLATE utf8mb4_general_ci", f"CAST({plain} AS CHAR)", f"CONCAT({plain}, '')", f"({plain})",
            "NULL", "5", "5.0", "0", "-5", "TRUE", "5e0", "DEFAULT", f"BINARY {plain}", f"(SELECT {plain})",
            f"{plain}/* ' */", f"/* ' */{plain}", f"{plain} -- '\n", f"{plain} # \"\n", f"{plain}+0",
            f"CONVERT({plain} USING utf8mb4)", f"CONVERT({plain} USING latin1)", self.quoted(key + "\\"),
        ]  # fmt: skip
        if '"' not in key:
            forms += ['"' + plain[1:-1].replace("''", "'") + '"'] * 3
        return piece(self.dice.one(forms), simpler=(plain,))

    def _odd_bytes(self, key: bytes) -> Part:
        plain = f"x'{key.hex()}'"
        forms = [f"X'{key.hex().upper()}'", f"0x{key.hex() or '00'}", f"_binary x'{key.hex()}'", f"({plain})", "NULL",
                 f"CAST({plain} AS BINARY)", f"CONCAT({plain}, '')", f"x'{key.hex()}00'", f"{plain}+0", "5", "'5'",
                 f"0b{int.from_bytes(key, 'big'):b}", f"b'{int.from_bytes(key, 'big'):b}'", f"x'{key.hex()}' ''",
                 f"_utf8mb4 {plain}", f"x'{key.hex()}20'"]  # fmt: skip
        if key.isascii() and b"\0" not in key:
            text = self.quoted(key.decode())
            forms += [text, text, f"_binary{text}", f"N{text}", f"_latin1{text}"]
        return piece(self.dice.one(forms), simpler=(plain,))

    # ── bound keys ──

    def _bound_key(self, key: int | str | bytes, strange: bool) -> Part:
        if isinstance(key, int):
            return self._bound_int(key, strange)
        raw = key.encode("latin1" if self.at.latin1 else "utf-8", "replace") if isinstance(key, str) else key
        plain = f"x'{raw.hex()}'" if isinstance(key, bytes) else self.quoted(key)
        if not strange:
            kind = FieldType.BLOB if isinstance(key, bytes) and self.dice.chance(0.5) else FieldType.VAR_STRING
            return self.bind(kind, raw, plain)
        choices: list[tuple[FieldType, Value]] = [
            *((kind, raw) for kind in _STRINGS), (FieldType.BIT, raw), (FieldType.ENUM, raw), (FieldType.SET, raw),
            (FieldType.JSON, raw), (FieldType.VAR_STRING, raw + b" "), (FieldType.VAR_STRING, raw + b"\0"),
            (FieldType.VAR_STRING, raw.upper()), (FieldType.NULL, None), (FieldType.VAR_STRING, None),
            (FieldType.LONGLONG, 5), (FieldType.DOUBLE, 5.0), (FieldType.NEWDECIMAL, Decimal(5)),
            (FieldType.NEWDECIMAL, Decimal("5.0")), (FieldType.TINY, 0), (FieldType.VAR_STRING, b"\xff"),
            (FieldType.GEOMETRY, raw), (FieldType.DECIMAL, Decimal(5)),
        ]  # fmt: skip
        kind, value = self.dice.one(choices)
        return self.bind(kind, value, plain)

    def _bound_int(self, key: int, strange: bool) -> Part:
        text = str(key).encode()
        if not strange:
            if key >= 2**63:
                return self.bind(FieldType.LONGLONG, key, str(key), unsigned=True)
            return self.bind(FieldType.LONGLONG, key, str(key), unsigned=key >= 0 and self.dice.chance(0.3))
        choices: list[tuple[FieldType, Value]] = [
            (FieldType.VAR_STRING, text), (FieldType.STRING, text), (FieldType.BLOB, text), (FieldType.VARCHAR, text),
            *((FieldType.VAR_STRING, odd) for odd in (b" " + text, b"0" + text, text + b".0", text + b"abc",
            text + b" ",
                                                      b"", b"\xc2\xb2", text + b"e0")),
            (FieldType.NEWDECIMAL, Decimal(key)), (FieldType.DECIMAL, Decimal(key)),
            (FieldType.NEWDECIMAL, Decimal(key) + Decimal("0.4")), (FieldType.DOUBLE, float(key)),
            (FieldType.DOUBLE, key + 0.5), (FieldType.NULL, None), (FieldType.LONGLONG, None), (FieldType.BIT, text),
            (FieldType.JSON, text), (FieldType.ENUM, text), (FieldType.DATETIME, DateTime(2024, 1, 5)),
            (FieldType.DATE, DateTime(2024, 1, 5)), (FieldType.TIME, Time(False, 0, 0, 0, 5)),
            (FieldType.TIME, Time()), (FieldType.DATETIME, DateTime()), (FieldType.VAR_STRING, text + b"\0"),
            (FieldType.GEOMETRY, text),
        ]  # fmt: skip
        if -128 <= key <= 127:
            choices += [(FieldType.TINY, key)] * 3
        if -32768 <= key <= 32767:
            choices += [(FieldType.SHORT, key), (FieldType.INT24, key), (FieldType.LONG, key)]
            choices.append((FieldType.FLOAT, float(key)))
        if 0 <= key <= 255:
            choices += [(FieldType.YEAR, key)]
        kind, value = self.dice.one(choices)
        return self.bind(kind, value, str(key))

    # ── other columns ──

    def value(self, column: Column, storing: bool = False) -> Part:
        """A value that fits the column; when it is stored under a lax sql_mode, sometimes one that does not."""
        if self.dice.chance(0.06):
            return "NULL"
        plain, kind, value = self._fitting(column)
        if storing and not self.at.strict and self.dice.chance(0.15):
            long = self.quoted("x" * 40)
            return self.dice.one(("'abc'", "999999999999", "'2024-99-99'", long, "''", "-1e9", "1.239"))
        if self.at.prepared and self.dice.chance(0.5):
            return self.bind(kind, value, plain)
        return plain

    def _fitting(self, column: Column) -> tuple[str, FieldType, Value]:
        match column.kind:
            case "int" | "uint":
                number = self.dice.one((0, 1, 2, 3, 4, 5, 7, 42, -1))
                return str(number), FieldType.LONGLONG, number
            case "dec":
                decimal = self.dice.one(("5.50", "0.25", "7", "12.75", "-1.5", "3.00"))
                return decimal, FieldType.NEWDECIMAL, Decimal(decimal)
            case "date":
                date = self.dice.one(_DATES[:4])
                return f"'{date}'", FieldType.VAR_STRING, date.encode()
            case "time":
                time = self.dice.one(_TIMES)
                return f"'{time}'", FieldType.VAR_STRING, time.encode()
            case "float":
                number_text = self.dice.one(("0.5", "-0.75", "1e0", "2", "1.25", "0"))
                return number_text, FieldType.DOUBLE, float(number_text)
            case "year":
                year = self.dice.one((1990, 1993, 1998, 2024))
                return str(year), FieldType.LONGLONG, year
            case "bit":
                bits = self.dice.one((0, 5, 10, 63))
                return self.dice.one((str(bits), f"b'{bits:b}'")), FieldType.LONGLONG, bits
            case "clock" | "enum" | "set" | "json":
                text = self.dice.one(_OF_KIND[column.kind])
                return self.quoted(text), FieldType.VAR_STRING, text.encode()
            case "bytes":
                raw = self.dice.one(BYTES)
                return f"x'{raw.hex()}'", FieldType.BLOB, raw
        text = self.dice.one(("new", "paid", "NEW", "a", "A", "5", "é", "", "Ann", "zoe", "o'k", "N", "S", "ab "))
        charset = "latin1" if self.at.latin1 else "utf-8"
        return self.quoted(text), FieldType.VAR_STRING, text.encode(charset)
