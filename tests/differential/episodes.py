"""Episodes: what one client says in one session, beginning with the base rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from shardproxy.protocol.mysql.values import Value
from tests.differential.dice import Dice, Situation
from tests.differential.pieces import Part, marks, render
from tests.differential.schema import BYTES, INT_KEYS, TEXTS
from tests.differential.writes import Writes

Parameter = tuple[int, bool, Value]

# What a comparison may rely on.
ROWS, ORDERED, COUNT = "rows", "ordered", "count"


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. label: its kind, for the score; compare: "rows" as a multiset, "ordered", or only their "count".

    again: a prepared statement is executed a second time with other keys; long_data: its texts are sent ahead.
    follows: only sensible after a write that both sides have run. loose: "float" when numbers are compared with 9
    digits, "json" when arrays have no order. tree: what the shrinker simplifies.
    """

    label: str
    sql: str
    parameters: tuple[Parameter, ...] = ()
    prepared: bool = False
    charset: str = "utf-8"
    compare: str = ROWS
    again: bool = False
    long_data: bool = False
    follows: bool = False
    loose: tuple[str, ...] = ()
    tree: Part | None = None

    @property
    def writes(self) -> bool:
        return self.label.split()[0] in ("insert", "replace", "update", "delete")


@dataclass(frozen=True, slots=True)
class Episode:
    """A session on a default schema; found_rows: the client counts matched rows, old_eof: it wants EOF packets
    (capability flags)."""

    database: str
    steps: tuple[Step, ...]
    found_rows: bool = False
    old_eof: bool = False


def step_of(step: Step, tree: Part) -> Step:
    """The same step with another tree."""
    sql, bound = render(tree)
    found = marks(tree)
    compare = COUNT if step.compare == COUNT else ROWS
    if "count" in found or ("limit" in found and "order" not in found):
        compare = COUNT
    elif "order" in found:
        compare = ORDERED
    loose = tuple(sorted(found & {"float", "json"}))
    parameters = tuple((b.kind, b.unsigned, b.value) for b in bound)
    return replace(step, sql=sql, parameters=parameters, compare=compare, loose=loose, tree=tree)


_MODES = (
    "''", "'ANSI_QUOTES'", "'NO_BACKSLASH_ESCAPES'", "'PIPES_AS_CONCAT'", "'ANSI'", "'STRICT_TRANS_TABLES'",
    "'TRADITIONAL'", "'HIGH_NOT_PRECEDENCE'", "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
    "'NO_AUTO_VALUE_ON_ZERO'", "'IGNORE_SPACE'", "'NO_UNSIGNED_SUBTRACTION'", "'ONLY_FULL_GROUP_BY'",
    "'PAD_CHAR_TO_FULL_LENGTH'", "'ALLOW_INVALID_DATES'",
)  # fmt: skip
_NAMES = ("SET NAMES latin1", "SET NAMES utf8mb4 COLLATE utf8mb4_bin", "SET NAMES utf8mb4", "SET NAMES binary",
          "SET NAMES utf8mb3", "SET NAMES ascii",
          "SET CHARACTER SET latin1", "SET character_set_connection = latin1", "SET character_set_results = latin1",
          "SET collation_connection = 'utf8mb4_general_ci'", "SET character_set_results = NULL")  # fmt: skip
_VARIABLES = (
    "SET sql_select_limit = 3", "SET sql_auto_is_null = 1", "SET timestamp = 1700000000", "SET time_zone = '+05:00'",
    "SET auto_increment_increment = 5", "SET insert_id = 77",
    "SET group_concat_max_len = 4", "SET div_precision_increment = 8", "SET max_sort_length = 64",
    "SET sql_buffer_result = 1", "SET @@identity = 12, sql_notes = 0", "SET sql_select_limit = 0",
    "SET last_insert_id = 9", "SET unique_checks = 0", "SET low_priority_updates = 1", "SET default_week_format = 3",
    "SET SESSION TRANSACTION READ ONLY", "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET LOCAL sql_select_limit = DEFAULT",
    "SET @@session.sql_select_limit = 2, sql_mode = ''", "SET sql_warnings = 1", "SET timestamp = DEFAULT",
    "SET lc_time_names = 'de_DE'", "SET sql_big_selects = 1", "SET SESSION foreign_key_checks = 0",
)  # fmt: skip
# Not sql_safe_updates: whether a key serves is the optimizer's opinion.
_CARRIED = (
    "SET sql_notes = 0", "SET time_zone = '+05:00'",
            "SET div_precision_increment = 8", "SET group_concat_max_len = 4", "SET SESSION foreign_key_checks = 0",
            "SET SESSION TRANSACTION READ ONLY")  # fmt: skip
_AFTER_WRITE = ("SHOW WARNINGS", "SELECT ROW_COUNT()", "SELECT LAST_INSERT_ID()", "SHOW COUNT(*) WARNINGS",
                "SELECT @@warning_count", "SELECT LAST_INSERT_ID(), ROW_COUNT()")  # fmt: skip
_CONTROL = ("BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "SET autocommit = 0",
            "SET autocommit = 1", "START TRANSACTION READ ONLY", "BEGIN WORK", "RELEASE SAVEPOINT a")  # fmt: skip
_METADATA = ("SHOW TABLES", "SHOW COLUMNS FROM rng.users", "DESC rng.orders", "SHOW CREATE TABLE rng.marks",
             "SHOW DATABASES LIKE 'r%'", "SHOW CREATE TABLE txt.items", "DESCRIBE hsh.marks", "SELECT 1",
             "SELECT DATABASE()", "SELECT @@sql_mode, @@autocommit", "SELECT @@character_set_client", "DO 1",
             "SELECT 1 FROM dual",
             "SHOW FULL COLUMNS FROM txt.stock", "TABLE rng.users", "SHOW VARIABLES LIKE 'sql_mode'",
             "SELECT 'a' = 'A'",
             "SHOW TABLES FROM txt", "SHOW COLUMNS FROM rng.levels LIKE 'u%'", "SELECT @@collation_connection",
             "SELECT column_name FROM information_schema.columns WHERE table_schema = 'rng' AND table_name = 'users'",
             "SELECT NULL", "VALUES ROW(1, 2)", "VALUES (1, 2)", "SHOW SESSION VARIABLES LIKE 'time_zone'",
             "EXPLAIN rng.users", "SHOW INDEX FROM bin.nothere", "SELECT * FROM rng.nothere",
             "SELECT nothere FROM rng.users")  # fmt: skip
_ASSIGNMENTS = ("SET @k = 5", "SET @k = 2000, @other = 'x'", "SET @k = '5abc'", "SET @k = NULL", "SET @k = 5.4",
                "SET @k = 5e0", "SET @k = x'05'", "SET @k = 'a', sql_notes = 1",
                "SELECT uid FROM rng.users WHERE uid = 5 INTO @k",
                "SELECT MAX(uid) INTO @k FROM rng.users", "SELECT @k := COUNT(*) FROM hsh.users", "DO @k := 4096",
                "SELECT MIN(name) INTO @k FROM hsh.users", "SELECT @k", "SET @k = @k + 1")  # fmt: skip
# Features whose numbers are values, not positions, limits or depths.
_WITH_TWINS = ("select", "select join", "select subquery", "select sharp", "select sharp join",
               "select sharp subquery", "select lock")  # fmt: skip
# A literal that stands by itself in a generated text, for twins.
_NUMBER = re.compile(r"(?<![\w.@'`\"$-])\d+(?![\w.'\"])|'\d+'")


def episode(seed: str, mariadb: bool, database: str = "") -> Episode:
    """The episode of a seed. database: its default schema, in place of one that chance chooses."""
    return _Author(Dice(f"{seed}/{mariadb}"), mariadb, database).write()


def _homes(database: str) -> Sequence[int | str | bytes]:
    """Keys that a session's statements may be about."""
    if database == "txt":
        return TEXTS
    return BYTES if database == "bin" else INT_KEYS


class _Author:
    def __init__(self, dice: Dice, mariadb: bool, database: str) -> None:
        self.dice = dice
        database = database or dice.weighted(((4.0, "rng"), (3.0, "hsh"), (2.0, "txt"), (0.8, "bin")))
        self.database = database
        self.at = Situation(dice, database, mariadb)
        self.limited = False
        self.has_variable = False  # @k has a value
        self.read_only = False
        self.steps: list[Step] = []
        self.homes = _homes(database)
        self.transactions = dice.chance(0.2)
        # Whether statements name many keys. Some transactions stay with one, so that they stay on one shard.
        self.wide = not self.transactions or dice.chance(0.6)
        self.settings = dice.chance(0.35)
        self.home: int | str | bytes = dice.one(self.homes)

    def write(self) -> Episode:
        found_rows, old_eof = self.dice.chance(0.1), self.dice.chance(0.2)
        if self.settings:
            for _ in range(self.dice.number(1, 2)):
                self._set()
        for _ in range(self.dice.number(6, 14)):
            self._statement()
        return Episode(self.database, tuple(self.steps), found_rows, old_eof)

    def _session(self, sql: str, label: str = "session", follows: bool = False) -> None:
        self.steps.append(Step(label, sql, follows=follows))

    def _set(self) -> None:
        kind = self.dice.number(0, 9)
        if kind <= 4:
            modes = self.dice.one(_MODES)
            self._session(f"SET sql_mode = {modes}")
            ansi = "'ANSI'" in modes
            self.at.ansi_quotes = "ANSI_QUOTES" in modes or ansi
            self.at.no_backslash = "NO_BACKSLASH" in modes
            self.at.pipes_concat = "PIPES" in modes or ansi
            self.at.strict = "STRICT" in modes or "TRADITIONAL" in modes
        elif kind <= 6:
            names = self.dice.one(_NAMES)
            self._session(names)
            self.at.latin1 = names in ("SET NAMES latin1", "SET CHARACTER SET latin1")
        else:
            # A variable that is not carried pins the session: seldom, or hardly anything else is tested.
            text = self.dice.one(_VARIABLES)
            if self.dice.chance(0.7):
                text = self.dice.one(_CARRIED)
            self._session(text)
            self.limited = self.limited or "sql_select_limit" in text

    def _statement(self) -> None:
        if self.settings and self.dice.chance(0.06):
            self._set()
            return
        if self.transactions and self.dice.chance(0.25):
            self._control(self.dice.one(_CONTROL))
            return
        if self.dice.chance(0.03):
            step = Step("metadata", self.dice.one(_METADATA))
            self.steps.append(replace(step, compare=COUNT) if self.limited else step)
            return
        if self.dice.chance(0.01):
            self._session("", "reset")
            at = self.at
            at.ansi_quotes = at.no_backslash = at.pipes_concat = at.latin1 = self.limited = self.read_only = False
            self.has_variable = False
            at.strict = True
            return
        if self.dice.chance(0.03):
            self._session(self.dice.one(_ASSIGNMENTS))
            self.has_variable = True
            return
        if self.dice.chance(0.01):
            self.at.database = self.dice.one(("rng", "hsh"))
            self._session(f"USE {self.at.database}")
            self.homes = _homes(self.at.database)
            self.home = self.dice.one(self.homes)
            return
        reads = [s for s in self.steps if s.label in _WITH_TWINS and not s.parameters]
        if reads and self.dice.chance(0.25 if self.has_variable else 0.1):
            self._twin(self.dice.one(reads))
            return
        if self.wide and self.dice.chance(0.5):
            self.home = self.dice.one(self.homes)
        self.at.home = self.home
        self.at.prepared = self.dice.chance(0.3)
        pinning = self.dice.one((0.9, 0.4, 0.1, 0.0)) if self.wide else 1.0
        author = Writes(self.at, pinning)
        write = self.dice.chance(0.32)
        label, tree = author.any_write() if write else author.any_query()
        again = self.at.prepared and self.dice.chance(0.4)
        charset = "latin1" if self.at.latin1 else "utf-8"
        long_data = self.at.prepared and self.dice.chance(0.1)
        step = step_of(Step(label, "", (), self.at.prepared, charset, again=again, long_data=long_data), tree)
        if self.limited and step.compare == ROWS:
            step = replace(step, compare=COUNT)
        try:
            step.sql.encode(charset)
        except UnicodeEncodeError:
            return
        self.steps.append(step)
        if label == "select found rows":
            self._session("SELECT FOUND_ROWS()", follows=True)
        if write and self.dice.chance(0.12):
            self._session(self.dice.one(_AFTER_WRITE), follows=True)

    def _control(self, text: str) -> None:
        """BEGIN inside a transaction commits it; MariaDB keeps READ ONLY then, which the proxy does not imitate."""
        if "READ ONLY" in text or (self.read_only and text.startswith(("BEGIN", "START"))):
            self._session("COMMIT", "transaction")
        self.read_only = "READ ONLY" in text or (self.read_only and text not in ("COMMIT", "ROLLBACK"))
        self._session(text, "transaction")

    def _twin(self, step: Step) -> None:
        """The same text with other literals: other values, or other kinds of literals at the same places."""
        forms: tuple[str, ...]
        forms = ("5", "'5'", "5.0", "5e0", "0x05", "x'05'", "b'101'", "'05'", "' 5'", "'5abc'", "2000", "'2000'", "-1",
                 "0", "18446744073709551616", "'a'", "''", "00005", "5.4", "1", "2")  # fmt: skip
        forms += ("@k", "@K", "@`k`") * (4 if self.has_variable else 0)
        sql = _NUMBER.sub(lambda m: self.dice.one(forms) if self.dice.chance(0.6) else m.group(), step.sql)
        if sql != step.sql and not step.parameters:
            self.steps.append(replace(step, sql=sql, tree=None, again=False))
