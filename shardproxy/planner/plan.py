"""What the planner says about a digest. Planned once, routed many times with the values at hand.

A plan never holds a literal's value, only its position: `Value(index)` is entry `index` of the list of literals that
`sql.digest.scan` takes out of the text (`?` markers of a prepared statement count as literals in that list).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from shardproxy.planner.bounds import KeyBounds
from shardproxy.planner.ddl_plan import DdlPlan
from shardproxy.planner.lookup_plan import Entries, LookedUp
from shardproxy.planner.merge_plan import MergePlan
from shardproxy.planner.scratch_plan import ScratchPlan
from shardproxy.planner.subquery_plan import SubqueriesFirst
from shardproxy.planner.write_plan import WritePlan
from shardproxy.topology.model import Keyspace

if TYPE_CHECKING:
    from shardproxy.planner.query_cache import Caching
    from shardproxy.planner.sequence_plan import SequencePlan
    from shardproxy.planner.template import Template
    from shardproxy.planner.voids import Voids


class Opcode(Enum):
    """How the statement meets the shards (the words of Vitess)."""

    UNSHARDED = "Unsharded"  # tables of one fixed shard
    EQUAL_UNIQUE = "EqualUnique"  # one key value
    IN = "In"  # a list of key values
    RANGE = "Range"  # bounds on the key
    SCATTER = "Scatter"  # every shard of the keyspace
    REFERENCE = "Reference"  # reads: any shard; writes: every shard
    SCRATCH = "Scratch"
    NONE = "None"  # no table: any server, or the proxy itself


class Rung(IntEnum):
    """The ladder of DESIGN 5."""

    ONE_SHARD = 1
    MERGE = 2
    SCRATCH = 3
    ERROR = 4


class StatementKind(Enum):
    """What the statement is, as far as the session and the executor must tell them apart."""

    SELECT = "SELECT"  # also VALUES, TABLE, WITH … SELECT
    INSERT = "INSERT"
    REPLACE = "REPLACE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    BEGIN = "BEGIN"  # BEGIN, START TRANSACTION …
    COMMIT = "COMMIT"  # without AND CHAIN / RELEASE
    ROLLBACK = "ROLLBACK"  # without TO SAVEPOINT / AND CHAIN / RELEASE
    SAVEPOINT = "SAVEPOINT"  # SAVEPOINT x, RELEASE SAVEPOINT x, ROLLBACK TO [SAVEPOINT] x
    SET = "SET"  # SET of session variables, NAMES, CHARACTER SET
    SET_TRANSACTION = "SET TRANSACTION"  # the next transaction only (no SESSION/GLOBAL keyword)
    USE = "USE"
    SHOW = "SHOW"  # metadata that any shard answers alike
    SHOW_WARNINGS = "SHOW WARNINGS"  # SHOW WARNINGS | ERRORS | COUNT(*) …, answered from the session
    DESCRIBE = "DESCRIBE"  # DESC t, EXPLAIN t
    EXPLAIN = "EXPLAIN"  # EXPLAIN SELECT …: goes where the statement would
    EXPLAIN_ROUTE = "EXPLAIN ROUTE"  # EXPLAIN ROUTE statement: what the proxy would do with it
    DDL = "DDL"  # CREATE/ALTER/DROP/TRUNCATE/RENAME on tables: every shard of the keyspace in order
    KILL = "KILL"
    DO = "DO"
    CALL = "CALL"
    LOCK_TABLES = "LOCK TABLES"  # and UNLOCK TABLES
    PREPARE = "PREPARE"  # SQL-level PREPARE/EXECUTE/DEALLOCATE
    ADMIN = "ADMIN"  # ANALYZE/CHECK/OPTIMIZE/FLUSH/GRANT …: refused
    EMPTY = "EMPTY"  # nothing but comments and blanks
    OTHER = "OTHER"


class PinReason(Enum):
    """Why a session must keep its server connection: state that no other connection has."""

    USER_VARIABLE = "user variable"
    TEMPORARY_TABLE = "temporary table"
    NAMED_LOCK = "GET_LOCK"
    LOCK_TABLES = "LOCK TABLES"
    FOUND_ROWS = "SQL_CALC_FOUND_ROWS"  # in an INSERT … SELECT
    SQL_PREPARE = "PREPARE statement"
    UNKNOWN_VARIABLE = "SET of a variable that is not carried"
    UNKNOWN_FUNCTION = "function that may change the session"
    PROCEDURE = "CALL"
    LAST_INSERT_ID = "LAST_INSERT_ID(expr)"
    HANDLER = "HANDLER"


@dataclass(frozen=True, slots=True)
class Value:
    """The literal at `index` of the statement's literal list; `negative` when a unary minus stands before it."""

    index: int
    negative: bool = False


# ── conditions on the key of one group of co-located tables ──────────────────────────────────────────────────────
# A condition is an upper bound on where rows can be: evaluating it gives a superset of the shards with matching rows.


@dataclass(frozen=True, slots=True)
class Anywhere:
    """No usable condition."""


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Provably no row (key = NULL, key IN (NULL)): any one shard gives the exact empty answer."""


@dataclass(frozen=True, slots=True)
class KeyIn:
    """key = value (one entry) or key IN (values)."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class KeyBetween:
    """Bounds on the key, each None when open. `*_open` means strict (< or >)."""

    low: Value | None
    high: Value | None
    low_open: bool = False
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Condition, ...]


Condition = Anywhere | Nowhere | KeyIn | KeyBetween | AllOf | AnyOf | LookedUp


@dataclass(frozen=True, slots=True)
class Group:
    """Tables that must be on one shard together: either fixed (`shard`), or found by `condition` on the key."""

    tables: tuple[str, ...]
    keyspace: Keyspace
    condition: Condition = field(default_factory=Anywhere)
    shard: int | None = None


class Spread(Enum):
    """What to do when the groups resolve to more than one shard."""

    REFUSE = "refuse"  # RouteError with Plan.spread_error
    CONCAT = "concat"  # plain SELECT of one group: the shards' rows, one after the other
    ALL = "all"  # writes to reference tables and DDL: each shard runs it
    ANY = "any"  # reads of reference tables, SHOW, SELECT without tables: one shard of choice
    MERGE = "merge"  # SELECT: the shards' rows become one answer as Plan.merge says
    SCRATCH = "scratch"  # SELECT: runs over scratch tables as Plan.scratch says
    EACH = "each"  # UPDATE, DELETE: each shard changes its own rows, in one transaction
    LISTS = "lists"  # SHOW TABLES: the shards' lists as one
    WRITE = "write"  # a write that is split by shard, or done in steps, as Plan.write says, in one transaction


class Local(Enum):
    """Functions of session state that the proxy itself answers when they are all that a SELECT asks for."""

    LAST_INSERT_ID = "last_insert_id"
    ROW_COUNT = "row_count"
    CONNECTION_ID = "connection_id"
    USER = "user"
    CURRENT_USER = "current_user"
    WARNING_COUNT = "warning_count"
    ERROR_COUNT = "error_count"
    FOUND_ROWS = "found_rows"


class InsertId(Enum):
    """How LAST_INSERT_ID() follows from the statement's OK packet, whose insert id is that of the last row too when
    the text gave it, and then LAST_INSERT_ID() has not changed."""

    REPORTED = "reported"  # an insert id other than 0 is the new LAST_INSERT_ID()
    KEPT = "kept"  # it stays as it was
    ASKED = "asked"  # the server must be told the session's value before, and asked afterwards


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that routing, session and executor need to know about a digest.

    read       may run on a replica outside a transaction
    groups     co-located table groups; all must resolve to the same single shard unless `spread` says otherwise
    spread     see Spread; `spread_error` is the user's message when REFUSE meets several shards (what forced it,
               what to do instead)
    error      rung 4 whatever the values: the message
    error_code number for `error`
    pins       reasons that pin the session once the statement is sent
    carries_insert_id  the text reads LAST_INSERT_ID() among other things: the server must be told the session's value
    point      SELECT of provably at most one row by a unique key, no locks, no large columns: may share a connection
    fixed_time several shards run a text (a reference write's defaults too) that reads the clock: give every shard the
               same `timestamp`
    local      items (label, function) when the proxy answers by itself
    key_index  literal index when the plan is exactly "key = one plain integer literal" on one group of a keyspace
               with integer keys, else −1: the hot path's short cut
    primary    a hint or the statement asks for the primary
    snapshot   a hint or the statement asks for one snapshot of all shards
    shard_hint shard name from a hint, or None
    key_bounds INSERT into a sharded table: each value of the group's condition must fit (`key_bounds.problem(value)`
               is "" then), or the statement is refused with that text: a lax sql_mode would store another value
    assigns    user variables that it assigns (@name, lower case): read back afterwards and carried (insert_id is ASKED)
    nonzero    values of an AUTO_INCREMENT column: refuse a literal or parameter that is 0 or NULL ('' and '0' too)
               unless sql_mode has NO_AUTO_VALUE_ON_ZERO, for each shard would put its own next number there
    insert_id  see InsertId
    found_rows SELECT SQL_CALC_FOUND_ROWS: the server is asked for FOUND_ROWS() afterwards, and for nothing else
               (insert_id is ASKED)
    not_above  why the rung above does not serve when several shards come out, for people; "" on the first rung
    text       while rows are on their way between shards: the statement with a condition for those shards that hide
               some, where the shards answer by themselves (see unseen); None: all get the client's own bytes
    merge, scratch, write  what Spread.MERGE, SCRATCH and WRITE do
    subqueries SELECT with Spread.SCRATCH: what to try before, see planner.subqueries
    sequence   INSERT into a table whose AUTO_INCREMENT column is counted by the proxy: first the numbers, see
               executor.sequence; the text with them is planned anew
    ddl        what a schema change is; None with a shard hint
    lookups    conditions of the groups for which a lookup index is asked first when several shards come out
    entries    a write that changes entries of lookup indexes
    voids      rows of cached tables that it may change; None unless the cache is strict
    cached     its answer may be kept; it is read from primaries then
    """

    kind: StatementKind
    opcode: Opcode
    rung: Rung
    reason: str
    digest_text: str = ""
    read: bool = False
    keyspace: Keyspace | None = None
    groups: tuple[Group, ...] = ()
    spread: Spread = Spread.REFUSE
    spread_error: str = ""
    error: str = ""
    error_code: int = 9100
    pins: tuple[PinReason, ...] = ()
    carries_insert_id: bool = False
    point: bool = False
    fixed_time: bool = False
    local: tuple[tuple[str, Local], ...] = ()
    key_index: int = -1
    primary: bool = False
    snapshot: bool = False
    shard_hint: str | None = None
    tables: tuple[str, ...] = ()
    schema_change: bool = False
    key_bounds: KeyBounds | None = None
    nonzero: tuple[Value, ...] = ()
    insert_id: InsertId = InsertId.REPORTED
    found_rows: bool = False
    assigns: tuple[str, ...] = ()
    not_above: str = ""
    text: Template | None = None
    merge: MergePlan | None = None
    scratch: ScratchPlan | None = None
    subqueries: SubqueriesFirst | None = None
    write: WritePlan | None = None
    sequence: SequencePlan | None = None
    ddl: DdlPlan | None = None
    lookups: tuple[LookedUp, ...] = ()
    entries: Entries | None = None
    voids: Voids | None = None
    cached: Caching | None = None

    @property
    def locks(self) -> bool:
        """A SELECT that locks rows, as far as its words tell: its locks are kept until the transaction ends, or the
        statement where there is none."""
        return self.kind is StatementKind.SELECT and not self.read

    def hides_on(self, shard: int) -> bool:
        """Whether a shard has rows on their way that this statement must not see there, unless its own conditions on
        the key leave them out."""
        copies = () if self.scratch is None else [copy for copy in self.scratch.copies if not copy.reference]
        return any(
            group.shard is None and group.keyspace.move is not None and shard in group.keyspace.move.hidden
            for groups in (self.groups, *(copy.groups for copy in copies))
            for group in groups
        )

    @property
    def needs_insert_id(self) -> bool:
        """Whether the server must be told the session's LAST_INSERT_ID() before the statement."""
        return self.carries_insert_id or self.insert_id is InsertId.ASKED
