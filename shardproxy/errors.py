"""Every error that shardproxy raises on purpose, in one tree.

    ShardproxyError
    ├── ConfigError              the operator's file is wrong
    ├── GoalError                a goal of a rebalance makes no sense for this keyspace
    ├── LocalError               a server of the local cluster cannot be started, ended or prepared
    ├── StoreError               the map store
    │   ├── StoreUnavailable     it did not answer in time; nothing was changed
    │   ├── StoreConflict        a condition does not hold; nothing was changed
    │   ├── StoreOutcomeUnknown  the answer was lost: the change was made, or was not, or still will be
    │   ├── WatchLost            changes were forgotten before they were seen: list anew
    │   ├── LeaseExpired         the lease is gone
    │   └── DocumentError        what is stored is not what it should be
    ├── ReshardError             a move cannot go on, or must not begin
    │   ├── MoveError            it does not fit the map, other moves, or the phase it is in
    │   ├── NotOurs              another orchestrator has taken the move, or its stream has ended
    │   └── RowsDiffer           source and target are not equal
    ├── ProtocolError            bytes that are not the MySQL protocol
    │   ├── LocalProtocolError   we were about to send them
    │   └── RemoteProtocolError  the peer sent them
    ├── SqlError                 an answer to one statement: MySQL number, SQLSTATE, message
    │   ├── UnsupportedError     rung 4 of the ladder: cannot be answered exactly
    │   ├── RouteError           the values at hand lead to no shard, or to too many
    │   ├── SessionError         the session's state forbids it (pinned, other shard's transaction)
    │   ├── TransactionError     a transaction over several shards cannot go on, or its outcome is not known
    │   ├── MovingError          keys are on their way to another shard: to be tried again
    │   └── AccessError          rejected authentication or privilege; terminal for a handshake
    └── BackendError             a server behind us
        ├── PoolTimeout          no connection became free in time; names the pool
        ├── BackendUnavailable   no server of the wanted role is healthy
        └── BackendLost          a connection broke before its answer was whole

Numbers of our own are 9100–9199 with SQLSTATE HY000, listed in docs/sql.md; where MySQL has a number for the very
thing (1045 access denied, 1047 unknown command, 1064 syntax, 1046 no database), that number is used.
"""

from __future__ import annotations

from collections.abc import Mapping


class ShardproxyError(Exception):
    """Root of the tree. `str(error)` is one line fit for a user: what, where, what to do next."""


class ConfigError(ShardproxyError):
    """The configuration file is wrong; the message names file, key path, what was found and what was expected."""


class GoalError(ShardproxyError):
    """What a rebalance shall reach cannot be reached, or makes no sense for the keyspace's present map."""


class LocalError(ShardproxyError):
    """A server of the local cluster cannot be started, ended or brought into the wanted state."""


class StoreError(ShardproxyError):
    """The map store cannot do it."""


class StoreUnavailable(StoreError):
    """The store did not answer in time, or refused. Nothing was changed: the same request may be sent again."""


class StoreConflict(StoreError):
    """A condition does not hold; nothing was changed. `found`: keys whose version is another → the version found."""

    def __init__(self, message: str, found: Mapping[str, int]) -> None:
        super().__init__(message)
        self.found = dict(found)


class StoreOutcomeUnknown(StoreError):
    """The answer to a change was lost. It was made, was not, or still will be made: read and decide."""


class WatchLost(StoreError):
    """The store has forgotten changes that the watch has not seen: list anew, and watch from there."""


class LeaseExpired(StoreError):
    """The lease does not exist any more, and neither do the entries that hung on it."""


class DocumentError(StoreError):
    """What is stored under a key is not what it should be; the message names the place and what was found."""


class ReshardError(ShardproxyError):
    """A move cannot go on, or must not begin; the message says why and what to do."""


class MoveError(ReshardError):
    """The move does not fit the map or the other moves, or cannot take that step in its phase."""


class NotOurs(ReshardError):
    """Another orchestrator has taken the move over, or the stream has ended: whoever gets this must stop."""


class RowsDiffer(ReshardError):
    """Source and target hold different rows; the message shows some."""


class ProtocolError(ShardproxyError):
    """Bytes that violate the protocol."""


class LocalProtocolError(ProtocolError):
    """We were about to send something invalid: a defect of ours."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something invalid: its connection cannot go on."""


# SQLSTATEs of MySQL's own numbers, where they are not HY000.
_SQLSTATES = {
    1044: "42000", 1045: "28000", 1046: "3D000", 1047: "08S01", 1049: "42000", 1064: "42000", 1065: "42000",
    1102: "42000", 1103: "42000", 1136: "21S01", 1146: "42S02", 1226: "42000", 1227: "42000", 1305: "42000",
    1461: "42000", 1568: "25001", 1051: "42S02", 4092: "42S02",
}  # fmt: skip


class SqlError(ShardproxyError):
    """The answer to one statement. Attributes: `code` (MySQL error number), `sqlstate` (5 characters)."""

    code = 1105
    sqlstate = "HY000"

    def __init__(self, message: str, code: int | None = None, sqlstate: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
            self.sqlstate = _SQLSTATES.get(code, self.sqlstate)
        if sqlstate is not None:
            self.sqlstate = sqlstate


class UnsupportedError(SqlError):
    """The statement cannot be answered exactly as one MySQL would (rung 4)."""

    code = 9100


class RouteError(SqlError):
    """The values at hand lead to no shard, or to more shards than the statement may touch."""

    code = 9101


class SessionError(SqlError):
    """The session's state (a pin, an open transaction) does not allow the statement."""

    code = 9102


class TransactionError(SqlError):
    """A transaction over several shards cannot be had here, or it was lost; the message says what became of it."""

    code = 9120


class MovingError(SqlError):
    """Keys that the statement may touch are on their way to another shard. Nothing was done: try again later."""

    code = 9122


class AccessError(SqlError):
    """Rejected: wrong user, password, or right."""

    code = 1045
    sqlstate = "28000"


class BackendError(SqlError):
    """A server behind the proxy could not do it."""

    code = 9110


class PoolTimeout(BackendError):
    """No connection of the pool became free within the wait limit."""

    code = 9111


class BackendUnavailable(BackendError):
    """No healthy server of the wanted role."""

    code = 9112


class BackendLost(BackendError):
    """The server connection broke before its answer was whole; whether a write happened is unknown."""

    code = 9113
