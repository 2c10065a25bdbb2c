"""The tables of both sides and the rows that every episode begins with.

Five keyspaces: `rng` and `hsh` have the same tables with integer keys, under a range map and a hash map; `txt` has text
keys, `bin` binary ones. Unique keys hold the shard key, as `shardctl check` wants it, and text that is grouped or
compared has both kinds of collation.

The range map has a gap from 6,000,000 to 7,000,000, whose keys no shard owns: a row with such a key is refused, by
design, and one server takes it. So only the corpus speaks of them.

`uni` has unique keys without the shard key: its `members` have lookup indexes over one and several columns. Only
sessions of its own are about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Cell = int | str | bytes | None

KEYSPACES = """
[keyspaces.rng]
key_type = "int"
map = "range"
ranges = [
    { from = "min", to = 0, shard = "shard1" },
    { from = 0, to = 5, shard = "shard2" },
    { from = 5, to = 100, shard = "shard3" },
    { from = 100, to = 2000, shard = "shard1" },
    { from = 2000, to = 5000, shard = "shard2" },
    { from = 5000, to = 6000000, shard = "shard3" },
    { from = 7000000, to = "max", shard = "shard3" },
]
[keyspaces.rng.tables]
users = { key = "uid" }
orders = { key = "uid" }
audit = { key = "aid" }
small = { key = "uid" }
huge = { key = "uid" }
rich = { key = "uid" }
facts = { key = "uid" }
dims = { reference = true }
levels = { reference = true }
stamps = { reference = true }
countries = { reference = true }
settings = { single = "shard1" }
marks = { single = "shard2" }

[keyspaces.hsh]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1, shard3 = 1 }
[keyspaces.hsh.tables]
users = { key = "uid" }
orders = { key = "uid" }
audit = { key = "aid" }
small = { key = "uid" }
huge = { key = "uid" }
rich = { key = "uid" }
facts = { key = "uid" }
dims = { reference = true }
levels = { reference = true }
stamps = { reference = true }
countries = { reference = true }
settings = { single = "shard2" }
marks = { single = "shard3" }

[keyspaces.txt]
key_type = "text"
map = "hash"
ring = { shard1 = 1, shard2 = 1, shard3 = 1 }
[keyspaces.txt.tables]
items = { key = "sku" }
stock = { key = "sku" }
codes = { key = "code" }
tags = { reference = true }
notes = { single = "shard1" }

[keyspaces.bin]
key_type = "binary"
map = "hash"
ring = { shard1 = 1, shard2 = 1, shard3 = 1 }
tables = { blobs = { key = "bid" }, fixed = { key = "bid" } }

[keyspaces.uni]
key_type = "int"
map = "hash"
ring = { shard1 = 1, shard2 = 1, shard3 = 1 }
[keyspaces.uni.tables]
members = { key = "uid", lookups = ["email", "code", "grp, nick"] }
visits = { key = "uid" }
places = { reference = true }
"""


@dataclass(frozen=True, slots=True)
class Column:
    """kind: int, uint (whose comparison with int goes wrong in servers), dec, float, text, bytes, date, time, clock
    (TIME), year, enum, set, bit or json; exact: equal values are the same bytes (no case-blind collation)."""

    name: str
    kind: str
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """kind: sharded, reference, single, view. `counting`: its AUTO_INCREMENT column. `primary`: its primary key.
    `looked_up`: columns of its lookup indexes.

    `columns` may leave out a clock that the server sets: its values are the same on all shards, not on both sides.
    """

    database: str
    name: str
    kind: str
    columns: tuple[Column, ...]
    primary: tuple[str, ...]
    definition: str
    key: str = ""
    shard: str = ""
    counting: str = ""
    looked_up: tuple[tuple[str, ...], ...] = ()

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


_UID = Column("uid", "int")
_COMMON = (
    Table("", "users", "sharded", (
        _UID, Column("name", "text", exact=False), Column("nick", "text"), Column("grp", "int"), Column("score", "dec"),
        Column("born", "date"),
    ), ("uid",), """CREATE TABLE users (uid BIGINT NOT NULL PRIMARY KEY,
        name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci,
        nick VARCHAR(12) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, grp INT, score DECIMAL(8,2), born DATE, KEY (grp))
    """, key="uid"),
    Table("", "orders", "sharded", (
        _UID, Column("oid", "int"), Column("total", "dec"), Column("state", "text"), Column("placed", "time"),
    ), ("uid", "oid"), """CREATE TABLE orders (uid BIGINT NOT NULL, oid INT NOT NULL, total DECIMAL(10,2),
        state CHAR(6) CHARACTER SET latin1 COLLATE latin1_bin, placed DATETIME(3), PRIMARY KEY (uid, oid), KEY (oid))
    """, key="uid"),
    Table("", "audit", "sharded", (Column("aid", "int"), _UID, Column("what", "text")), ("aid",),
        "CREATE TABLE audit (aid BIGINT NOT NULL PRIMARY KEY, uid BIGINT, what VARCHAR(20) COLLATE utf8mb4_bin)",
        key="aid"),
    Table("", "small", "sharded", (_UID, Column("v", "int"), Column("name", "text", exact=False)), ("uid",),
        "CREATE TABLE small (uid SMALLINT NOT NULL PRIMARY KEY, v INT NOT NULL DEFAULT 7, "
        "name VARCHAR(8) COLLATE utf8mb4_unicode_ci)", key="uid"),
    Table("", "huge", "sharded", (Column("uid", "uint"), Column("seq", "int"), Column("v", "int")), ("uid", "seq"),
        "CREATE TABLE huge (uid BIGINT UNSIGNED NOT NULL, seq INT NOT NULL AUTO_INCREMENT, v TINYINT, "
        "PRIMARY KEY (uid, seq), KEY (seq))", key="uid", counting="seq"),
    Table("", "levels", "reference", (Column("level", "int"), _UID, Column("label", "text", exact=False)), ("level",),
        "CREATE TABLE levels (level INT NOT NULL PRIMARY KEY, uid BIGINT, "
        "label VARCHAR(20) COLLATE utf8mb4_general_ci DEFAULT 'none')"),
    Table("", "countries", "reference", (Column("code", "text"), Column("name", "text"), Column("pop", "int")),
        ("code",), "CREATE TABLE countries (code CHAR(2) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, "
        "name VARCHAR(30) COLLATE utf8mb4_bin, pop INT)"),
    Table("", "facts", "sharded", (
        _UID, Column("n", "int"), Column("dbl", "float"), Column("flt", "float"), Column("colour", "enum"),
        Column("marks", "set"), Column("bits", "bit"), Column("doc", "json"), Column("clock", "clock"),
        Column("yr", "year"), Column("ubig", "uint"), Column("big", "dec"), Column("ci", "text", exact=False),
        Column("l1", "text", exact=False), Column("vb", "bytes"), Column("seen", "time"),
    ), ("uid", "n"), """CREATE TABLE facts (uid BIGINT NOT NULL, n INT NOT NULL, dbl DOUBLE, flt FLOAT,
        colour ENUM('red','green','Blue'), marks SET('x','b','c'), bits BIT(6), doc JSON, clock TIME(2), yr YEAR,
        ubig BIGINT UNSIGNED, big DECIMAL(20,6), ci VARCHAR(16) COLLATE {blind},
        l1 VARCHAR(12) CHARACTER SET latin1 COLLATE latin1_swedish_ci, vb VARBINARY(8), seen TIMESTAMP(3) NULL,
        PRIMARY KEY (uid, n), KEY (big), KEY (ci))
    """, key="uid"),
    Table("", "dims", "reference", (
        Column("id", "int"), _UID, Column("dbl", "float"), Column("colour", "enum"), Column("big", "dec"),
        Column("ci", "text", exact=False),
    ), ("id",), """CREATE TABLE dims (id INT NOT NULL PRIMARY KEY, uid BIGINT, dbl DOUBLE,
        colour ENUM('red','green','Blue'), big DECIMAL(20,6), ci VARCHAR(16) COLLATE {blind})
    """),
    Table("", "stamps", "reference", (Column("id", "int"), Column("v", "int")), ("id",),
        "CREATE TABLE stamps (id INT NOT NULL PRIMARY KEY, v INT, "
        "at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))"),
    Table("", "settings", "single", (Column("id", "int"), _UID, Column("name", "text"), Column("value", "text")),
        ("id",), "CREATE TABLE settings (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, uid BIGINT, "
        "name VARCHAR(20) COLLATE utf8mb4_bin UNIQUE, value VARCHAR(20) COLLATE utf8mb4_bin)", counting="id"),
    Table("", "marks", "single", (_UID, Column("mark", "dec")), ("uid",),
        "CREATE TABLE marks (uid BIGINT NOT NULL PRIMARY KEY, mark DECIMAL(5,2))"),
    Table("", "rich", "view", (_UID, Column("name", "text", exact=False), Column("grp", "int")), ("uid",),
        "CREATE VIEW rich AS SELECT uid, name, grp FROM users WHERE score > 5", key="uid"),
)  # fmt: skip
_SINGLE_ON = {("rng", "settings"): "shard1", ("rng", "marks"): "shard2", ("hsh", "settings"): "shard2",
              ("hsh", "marks"): "shard3", ("txt", "notes"): "shard1"}  # fmt: skip
_TEXT = (
    Table("txt", "items", "sharded", (
        Column("sku", "text"), Column("title", "text", exact=False), Column("price", "dec"),
    ), ("sku",), "CREATE TABLE items (sku VARCHAR(10) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, "
        "title VARCHAR(20) COLLATE utf8mb4_general_ci, price DECIMAL(9,2))", key="sku"),
    Table("txt", "stock", "sharded", (Column("sku", "text"), Column("place", "text"), Column("qty", "int")),
        ("sku", "place"), "CREATE TABLE stock (sku CHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, "
        "place VARCHAR(6) COLLATE utf8mb4_bin NOT NULL DEFAULT '', qty INT, PRIMARY KEY (sku, place))", key="sku"),
    Table("txt", "codes", "sharded", (Column("code", "text"), Column("n", "int")), ("code",),
        "CREATE TABLE codes (code VARCHAR(10) CHARACTER SET utf8mb4 COLLATE {no_pad} NOT NULL PRIMARY KEY, n INT)",
        key="code"),
    Table("txt", "tags", "reference", (Column("tag", "text"), Column("sku", "text"), Column("n", "int")), ("tag",),
        "CREATE TABLE tags (tag VARCHAR(10) COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, "
        "sku VARCHAR(10) COLLATE utf8mb4_bin, n INT)"),
    Table("txt", "notes", "single", (Column("id", "int"), Column("sku", "text"), Column("body", "text")), ("id",),
        "CREATE TABLE notes (id INT NOT NULL PRIMARY KEY, sku VARCHAR(10) COLLATE utf8mb4_bin, "
        "body TEXT COLLATE utf8mb4_bin)", shard="shard1"),
)  # fmt: skip
_BINARY = (
    Table("bin", "blobs", "sharded", (Column("bid", "bytes"), Column("v", "int"), Column("body", "bytes")), ("bid",),
        "CREATE TABLE blobs (bid VARBINARY(8) NOT NULL PRIMARY KEY, v INT, body VARBINARY(20))", key="bid"),
    Table("bin", "fixed", "sharded", (Column("bid", "bytes"), Column("v", "int")), ("bid",),
        "CREATE TABLE fixed (bid BINARY(4) NOT NULL PRIMARY KEY, v INT)", key="bid"),
)  # fmt: skip
_LOOKED_UP = (
    Table("uni", "members", "sharded", (
        _UID, Column("email", "text", exact=False), Column("code", "int"), Column("grp", "int"),
        Column("nick", "text", exact=False), Column("score", "dec"),
    ), ("uid",), """CREATE TABLE members (uid BIGINT NOT NULL PRIMARY KEY, email VARCHAR(20) COLLATE {blind} UNIQUE,
        code INT, grp INT, nick VARCHAR(12) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci, score DECIMAL(8,2),
        UNIQUE KEY by_code (code), UNIQUE KEY (grp, nick))
    """, key="uid", looked_up=(("email",), ("code",), ("grp", "nick"))),
    Table("uni", "visits", "sharded", (
        _UID, Column("n", "int"), Column("code", "int"), Column("place", "text"),
    ), ("uid", "n"), """CREATE TABLE visits (uid BIGINT NOT NULL, n INT NOT NULL, code INT,
        place VARCHAR(8) COLLATE utf8mb4_bin, PRIMARY KEY (uid, n))
    """, key="uid"),
    Table("uni", "places", "reference", (Column("id", "int"), _UID, Column("place", "text")), ("id",),
        "CREATE TABLE places (id INT NOT NULL PRIMARY KEY, uid BIGINT, place VARCHAR(8) COLLATE utf8mb4_bin)"),
)  # fmt: skip


def _in(database: str, table: Table) -> Table:
    shard = _SINGLE_ON.get((database, table.name), "")
    return Table(database, table.name, table.kind, table.columns, table.primary, table.definition, table.key, shard,
                 table.counting)  # fmt: skip


TABLES: tuple[Table, ...] = (
    *(_in("rng", table) for table in _COMMON),
    *(_in("hsh", table) for table in _COMMON),
    *_TEXT,
    *_BINARY,
    *_LOOKED_UP,
)
COUNTING = tuple(table for table in TABLES if table.counting)
DATABASES = ("rng", "hsh", "txt", "bin", "uni")

# ── rows ──

INT_KEYS = (
    -(2**63), -4096, -100, -5, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 42, 99, 100, 101, 255, 500, 999, 2000, 2001,
    4096, 5000, 32767, 2**31, 2**53, 2**53 + 1, 2**63 - 1,
)  # fmt: skip
TEXTS = (
    "a", "A", "ab", "aB", "b", "5", "05", "5.0", "5abc", "0", "-5", "1e1", "é", "e", "É", "ß", "ss", "x y", "", "Zoë",
    "zoe", "日本", "o'k", "a%b", "a_b", "a\\b", 'q"q', "NULL", "?", "abcdefgh",
    "𝄞", "日", "a\u0301", "á",
)  # fmt: skip
BYTES = (
    b"a", b"A", b"ab", b"5", b"05", b"", b"\0", b"a\0", b"\0\xff", b"\xc3\xa9", b"a ", b"12345678", b"abcd", b"\\'",
)  # fmt: skip
COLOURS = ("red", "Blue", None, "green")
DOCS = ("{}", '{"a": 1}', "[1, 2]", '"text"', '{"a": 1, "b": [null, true]}', "17", "null", "[]")
_NAMES = ("Ann", "ann", "Bob", "bob ", "Zoë", "Zoe", None, "5", "05", "", "o'k", "x%y")


def base_rows(table: Table) -> Iterator[tuple[Cell, ...]]:
    """The rows of a table when an episode begins. Chosen to have ties, NULLs, and keys on every shard."""
    if table.kind == "view":
        return
    match table.name:
        case "users":
            for i, uid in enumerate(INT_KEYS):
                score = None if i % 7 == 3 else f"{i * 37 % 20}.{i % 4 * 25:02d}"
                born = None if i % 5 == 1 else f"19{50 + i}-0{1 + i % 9}-15"
                group = None if i % 6 == 4 else i % 4
                yield uid, _NAMES[i % len(_NAMES)], TEXTS[i * 3 % len(TEXTS)], group, score, born
        case "orders":
            for i, uid in enumerate(INT_KEYS[1:-1:2] + INT_KEYS[11:16] * 2):
                state = ("new", "paid", "NEW", None)[i % 4]
                total = None if i % 5 == 2 else f"{i * 13 % 40}.50"
                placed = None if i % 6 == 5 else f"2024-01-{1 + i % 28:02d} 10:00:00.{i % 10}00"
                yield uid, i, total, state, placed
        case "audit":
            for i in range(16):
                yield INT_KEYS[i * 2], INT_KEYS[i * 5 % 32] if i % 4 else None, TEXTS[i]
        case "small":
            for i, uid in enumerate(k for k in INT_KEYS if -32768 <= k <= 32767):
                yield uid, i % 5, _NAMES[(i + 2) % len(_NAMES)]
        case "huge":
            unsigned = [k for k in INT_KEYS if k >= 0]
            for i, uid in enumerate([*unsigned[::2], 2**63, 2**64 - 1, 2**64 - 2]):
                yield uid, i + 1, None if i % 4 == 2 else i % 3
        case "facts" | "dims":
            yield from _typed_rows(table.name)
        case "levels":
            for i in range(6):
                yield i, INT_KEYS[i * 4 + 3] if i else None, ("low", "Low", "mid", None, "é", "e")[i]
        case "stamps":
            for i in range(4):
                yield i, i % 2
        case "countries":
            for i, code in enumerate(("AT", "CH", "DE", "at", "FR", "IT")):
                yield code, code.lower() * 2, None if i == 4 else i * 1000
        case "settings":
            for i in range(8):
                yield i + 1, INT_KEYS[i * 3] if i else None, f"s{i}", ("on", "off", None)[i % 3]
        case "marks":
            for i, uid in enumerate((5, -5, 42, 2000, 7)):
                yield uid, f"{i}.50"
        case _:
            yield from _other_rows(table)


def _typed_rows(name: str) -> Iterator[tuple[Cell, ...]]:
    """Rows of the tables with a column of nearly every type."""
    if name == "dims":
        for i in range(7):
            text = ("Ann", "ann", "é", None, "zoë", "x", "5")[i]
            yield i, INT_KEYS[i * 3 + 5] if i != 4 else None, f"{i / 4}", COLOURS[i % 4], f"{i - 2}.5", text
        return
    for i, uid in enumerate((*INT_KEYS[2:26], *INT_KEYS[5:19])):
        yield (
            uid, i % 3 if i < 24 else 10 + i, None if i % 9 == 4 else f"{(i * 7 % 11 - 3) / 4}",
            None if i % 8 == 2 else f"{i % 5 * 0.5 - 1}", COLOURS[i % 4], (None, "", "x", "x,c", "b,c")[i % 5],
            None if i % 6 == 1 else i * 5 % 64, None if i % 7 == 5 else DOCS[i % len(DOCS)],
            None if i % 6 == 3 else f"{'-' if i % 4 == 1 else ''}{i * 5 % 90:02d}:{i:02d}:30.{i % 10}0",
            None if i % 5 == 3 else 1990 + i % 9, None if i % 8 == 6 else (2**64 - 1 - i if i % 3 else i * 1000),
            None if i % 7 == 2 else f"{(i * 31 % 17 - 6) * 1234567}.{i % 4 * 125:06d}",
            None if i % 9 == 7 else TEXTS[i * 5 % len(TEXTS)], _NAMES[i % 3], None if i % 5 == 1 else BYTES[i % 7],
            None if i % 6 == 2 else f"2024-0{1 + i % 8}-11 12:{i:02d}:00.{i % 10}00",
        )  # fmt: skip


def _other_rows(table: Table) -> Iterator[tuple[Cell, ...]]:
    match table.name:
        case "items":
            for i, sku in enumerate(TEXTS):
                yield sku, _NAMES[i % len(_NAMES)], None if i % 6 == 2 else f"{i % 9}.{i % 4 * 25:02d}"
        case "stock":
            for i, sku in enumerate(TEXTS[::2] + TEXTS[:6]):
                yield sku, ("N", "S", "n")[i % 3] if 2 * i < len(TEXTS) else f"p{i}", None if i % 4 == 1 else i % 5
        case "codes":
            for i, code in enumerate([*TEXTS[:20], "a ", "a  ", " a", "5 ", "\t"]):
                yield code, i % 4
        case "tags":
            for i, tag in enumerate(("red", "Red", "blue", "", "5", "é")):
                yield tag, TEXTS[i * 4] if i % 3 else None, i
        case "members" | "visits" | "places":
            yield from _looked_up_rows(table.name)
        case "notes":
            for i in range(6):
                yield i, TEXTS[i * 3] if i else None, f"note {i % 2}"
        case "blobs":
            for i, bid in enumerate(BYTES):
                yield bid, None if i % 4 == 1 else i % 3, BYTES[-1 - i]
        case "fixed":
            for i, bid in enumerate((b"abcd", b"ab\0\0", b"\0\0\0\0", b"5\0\0\0", b"\xff\xfe\0a", b"A   ")):
                yield bid, i % 3
        case _:
            raise AssertionError(table.name)


# Values that statements store and ask for, each unique under every collation here.
_UNIQUE = ("new", "a", "5", "é", "Ann", None, "o'k", "S", "zoe", "", "x1", "x2", None, "paid", "x3", "x4")


def _looked_up_rows(name: str) -> Iterator[tuple[Cell, ...]]:
    for i, uid in enumerate(INT_KEYS[1::2]):
        if name == "members":
            code = (0, 5, None, 7, 100, 42, 200, -1)[i % 8] if i < 8 else 1000 + i
            nick = ("N", "a", "ab", None)[i // 4]
            yield uid, _UNIQUE[i], code, i % 4 if i % 5 != 3 else None, nick, None if i % 6 == 5 else f"{i}.50"
        elif name == "visits":
            yield uid, i % 3, None if i % 7 == 6 else i % 6, ("new", "a", None)[i % 3]
        elif i < 5:
            yield i, uid if i != 2 else None, ("new", "S", "a", None, "x1")[i]


def literal(cell: Cell) -> str:
    """A cell as SQL text, for loading."""
    if cell is None:
        return "NULL"
    if isinstance(cell, int):
        return str(cell)
    if isinstance(cell, bytes):
        return f"x'{cell.hex()}'"
    return "'" + cell.replace("\\", "\\\\").replace("'", "''") + "'"


def load_statement(table: Table, rows: list[tuple[Cell, ...]]) -> str:
    """One INSERT of these rows."""
    values = ", ".join("(" + ", ".join(map(literal, row)) + ")" for row in rows)
    names = ", ".join(column.name for column in table.columns)
    return f"INSERT INTO {table.database}.{table.name} ({names}) VALUES {values}"
