"""One client's session: a value that I/O code reads and changes, with no I/O of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from shardproxy.planner.cache import CachedPlan
from shardproxy.planner.plan import PinReason
from shardproxy.session.profile import Profile, StatementKey, gathers, statement_key, with_schema
from shardproxy.sql.modes import SqlModes
from shardproxy.topology.model import Snapshot


@dataclass(slots=True)
class PreparedStatement:
    """A client's prepared statement.

    text: as sent; profile: the session's at PREPARE, which settles how the text is read for good, as do `modes`; key:
    what server connections know it by; plain_key: the same with the variant of the last execution that was plain (see
    executor.variants); entry: its plan, made under plan version `version`; literals: raw literals of
    the text, b"?" for each parameter in turn; parameters: for each literal its parameter number, else −1; types: 2
    bytes a parameter as last bound by the client, empty before the first execution; odd_types: in their place, when
    some are not types of parameters; long_data: parameter → bytes sent ahead; local: a statement about the session,
    which is run as text.
    """

    ident: int
    text: bytes
    entry: CachedPlan
    literals: list[bytes]
    parameters: list[int]
    param_count: int
    profile: Profile
    modes: SqlModes
    version: int
    key: StatementKey = field(init=False)
    plain_key: tuple[StatementKey, bytes] = field(init=False)
    types: bytes = b""
    odd_types: bytes = b""
    long_data: dict[int, bytearray] | None = None
    local: bool = False

    def __post_init__(self) -> None:
        self.key = statement_key(self.profile, self.text)
        self.plain_key = (self.key, b"")


@dataclass(frozen=True, slots=True)
class SqlStatement:
    """A statement of SQL's PREPARE: its text, and how and for which default schema it was read."""

    text: bytes
    modes: SqlModes
    schema: str | None


class Session:
    """Everything that follows a client from statement to statement.

    `simple` is the hot path's one test: no server connection is held, nothing is pending, autocommit is on. While
    FOUND_ROWS() is known it is off too, so that the next statement comes the long way and makes that void.

    `short` is the same for a session that holds a connection: the next statement of its transaction may go there at
    once. It is off while FOUND_ROWS() is known, and for a transaction that is older than the newest map.
    """

    __slots__ = (
        "_default_modes",
        "_next_statement",
        "affected",
        "autocommit",
        "begin",
        "begun",
        "conditions",
        "fenced_under",
        "fences",
        "found",
        "ident",
        "initial",
        "insert_id",
        "modes",
        "next_transaction",
        "opened",
        "overtaken",
        "pins",
        "profile",
        "reads_primary",
        "savepoints",
        "shard",
        "short",
        "simple",
        "sql_statements",
        "statements",
        "user",
        "warnings",
    )  # fmt: skip

    def __init__(self, ident: int, user: str, profile: Profile, default_modes: SqlModes) -> None:
        self.ident = ident  # CONNECTION_ID()
        self.user = user
        self.initial = profile
        self.profile = profile
        self.reads_primary = False
        self.statements: dict[int, PreparedStatement] | None = None  # made on first use: idle clients stay small
        self._next_statement = 1
        self._default_modes = default_modes  # the servers' global sql_mode
        self.autocommit = True
        self.modes = default_modes
        self.clear()

    def clear(self) -> None:
        """Back to the state after the handshake, but for the default database (COM_RESET_CONNECTION)."""
        self.begin: tuple[bytes, ...] | None = None  # BEGIN, SAVEPOINT … answered but not yet sent to a server
        self.next_transaction: tuple[bytes, ...] = ()  # SET TRANSACTION … for the next transaction only
        self.opened: tuple[bytes, ...] = ()  # SET TRANSACTION … that the transaction on `shard` began with
        self.savepoints: tuple[str, ...] = ()  # of that transaction
        self.pins: tuple[PinReason, ...] = ()
        self.shard = -1  # index of the shard that a transaction or pin holds, −1 for none
        self.begun: Snapshot | None = None  # the map under which the transaction on `shard` began
        self.overtaken = False  # there is a newer one
        self.fenced_under: Snapshot | None = None  # under whose moves it has all fences that it needs
        self.fences: set[tuple[int, int, int]] = set()  # that it holds: shard, move, epoch (executor.fence)
        self.insert_id = 0  # LAST_INSERT_ID()
        self.affected = 0  # ROW_COUNT()
        self.found = -1  # FOUND_ROWS() while it is known: right after SELECT SQL_CALC_FOUND_ROWS
        self.warnings = 0
        self.conditions: list[tuple[bytes, bytes, bytes]] | None = None  # SHOW WARNINGS, when not on `held`
        self.statements = None
        self.sql_statements: dict[str, SqlStatement] = {}  # by name in lower case
        self.use_profile(with_schema(self.initial, self.profile.schema))

    def use_profile(self, profile: Profile) -> None:
        """Adopt carried state, and what follows from it."""
        self.profile = profile
        self.autocommit = profile.autocommit
        mode = profile.value("sql_mode")
        modes = SqlModes.parse(mode.strip("'")) if mode else self._default_modes
        single_byte, three_bytes = not profile.reads_utf8, profile.three_bytes
        gathered, auto_is_null = gathers(profile), profile.auto_is_null
        if auto_is_null is not self.modes.auto_is_null:
            for statement in (self.statements or {}).values():
                statement.version = -1  # planned anew before it runs again
        if single_byte or three_bytes or gathered or auto_is_null:
            modes = replace(
                modes, single_byte=single_byte, three_bytes=three_bytes, gathered=gathered, auto_is_null=auto_is_null
            )
        self.modes = modes
        self.refresh()

    def refresh(self) -> None:
        """Recompute `simple` after any change to transaction, pins or autocommit."""
        nothing = self.begin is None and not self.next_transaction and self.found < 0
        self.simple = self.autocommit and self.shard < 0 and nothing
        if self.shard < 0:
            self.overtaken = False
        self.short = self.found < 0 and not self.overtaken

    def hold(self, shard: int, begun: Snapshot, newest: Snapshot) -> None:
        """A transaction or a pin holds a connection to a shard, by a statement that was planned under `begun`."""
        self.shard = shard
        self.begun = self.fenced_under = begun
        self.fences = set()
        self.overtaken = begun is not newest

    def overtake(self) -> None:
        """There is a new map."""
        self.overtaken = self.shard >= 0
        self.refresh()

    def catch_up(self, newest: Snapshot) -> None:
        """What is held is no transaction, only a connection that a pin keeps."""
        self.begun = self.fenced_under = newest
        self.overtaken = False
        self.fences = set()
        self.refresh()

    def find(self, rows: int) -> None:
        """FOUND_ROWS() is this from now on; −1: not known."""
        self.found = rows
        self.refresh()

    @property
    def in_transaction(self) -> bool:
        return self.begin is not None or self.shard >= 0

    def pin(self, reasons: tuple[PinReason, ...]) -> None:
        self.pins = tuple(dict.fromkeys(self.pins + reasons))

    def add_statement(self, statement: PreparedStatement) -> None:
        if self.statements is None:
            self.statements = {}
        self.statements[statement.ident] = statement

    def next_statement_id(self) -> int:
        ident = self._next_statement
        self._next_statement = ident % 0xFFFFFFFE + 1
        return ident
