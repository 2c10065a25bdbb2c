"""Commands that carry more than SQL text, and the answer to a prepare.

Each is a frozen dataclass with `build()` → payload (command byte included) and `parse(payload)`; the caller has looked
at the command byte. `parse` raises RemoteProtocolError when the payload is cut off; bytes after the last field are
ignored, as servers do. Text is bytes in the client's character set unless it says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import Cap, Com
from shardproxy.protocol.mysql.handshake import build_attributes, decode_name, parse_attributes
from shardproxy.protocol.mysql.packets import OK_HEADER, PayloadReader, null_str


def _open(payload: bytes, command: Com) -> PayloadReader:
    if not payload or payload[0] != command.value:
        raise RemoteProtocolError(f"not a COM_{command.name}")
    return PayloadReader(payload, 1)


def _u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class InitDb:
    """COM_INIT_DB: change the default database."""

    database: bytes

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.INIT_DB.value,)) + self.database

    @classmethod
    def parse(cls, payload: bytes) -> InitDb:
        """The command."""
        return cls(_open(payload, Com.INIT_DB).rest())


@dataclass(frozen=True, slots=True)
class FieldList:
    """COM_FIELD_LIST: the columns of a table whose names match a LIKE pattern ("" for all)."""

    table: bytes
    wildcard: bytes = b""

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.FIELD_LIST.value,)) + null_str(self.table, "table name") + self.wildcard

    @classmethod
    def parse(cls, payload: bytes) -> FieldList:
        """The command."""
        reader = _open(payload, Com.FIELD_LIST)
        table = reader.null_str()
        return cls(table, reader.rest().removesuffix(b"\0"))


@dataclass(frozen=True, slots=True)
class ChangeUser:
    """COM_CHANGE_USER: log in anew on the same connection. Names are UTF-8.

    Clients may leave off the last fields: then `charset` is None (unchanged), `auth_plugin` "", `attributes` {}.
    """

    user: str
    auth_response: bytes
    database: str | None
    charset: int | None = None
    auth_plugin: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    def build(self, capabilities: int) -> bytes:
        """The payload under the connection's capabilities."""
        if len(self.auth_response) > 255:
            raise LocalProtocolError("the authentication response of COM_CHANGE_USER has at most 255 bytes")
        parts = [
            bytes((Com.CHANGE_USER.value,)),
            null_str(self.user.encode("utf-8"), "user name"),
            bytes((len(self.auth_response),)),
            self.auth_response,
            null_str((self.database or "").encode("utf-8"), "database name"),
        ]
        if self.charset is not None:
            parts.append((self.charset & 0xFFFF).to_bytes(2, "little"))
            if capabilities & Cap.PLUGIN_AUTH.value:
                parts.append(null_str(self.auth_plugin.encode("utf-8"), "plugin name"))
                if capabilities & Cap.CONNECT_ATTRS.value:
                    parts.append(build_attributes(self.attributes))
        return b"".join(parts)

    @classmethod
    def parse(cls, payload: bytes, capabilities: int) -> ChangeUser:
        """The command under the connection's capabilities (of a client with SECURE_CONNECTION)."""
        reader = _open(payload, Com.CHANGE_USER)
        user = decode_name(reader.null_str(), "user name")
        auth_response = reader.take(reader.integer(1))
        database = decode_name(reader.null_str(), "database name") or None
        charset = reader.integer(2) if reader.left else None
        auth_plugin = ""
        if reader.left and capabilities & Cap.PLUGIN_AUTH.value:
            auth_plugin = decode_name(reader.null_str(), "plugin name")
        attributes = {}
        if reader.left and capabilities & Cap.CONNECT_ATTRS.value:
            attributes = parse_attributes(reader)
        return cls(user, auth_response, database, charset, auth_plugin, attributes)


@dataclass(frozen=True, slots=True)
class SetOption:
    """COM_SET_OPTION: 0 switches multi-statements on, 1 off."""

    option: int

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.SET_OPTION.value,)) + (self.option & 0xFFFF).to_bytes(2, "little")

    @classmethod
    def parse(cls, payload: bytes) -> SetOption:
        """The command."""
        return cls(_open(payload, Com.SET_OPTION).integer(2))


@dataclass(frozen=True, slots=True)
class StmtPrepare:
    """COM_STMT_PREPARE."""

    sql: bytes

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.STMT_PREPARE.value,)) + self.sql

    @classmethod
    def parse(cls, payload: bytes) -> StmtPrepare:
        """The command."""
        return cls(_open(payload, Com.STMT_PREPARE).rest())


@dataclass(frozen=True, slots=True)
class PrepareOk:
    """The answer to a prepare; `params` definitions and then `columns` definitions follow it."""

    statement_id: int
    columns: int
    params: int
    warnings: int = 0

    def build(self) -> bytes:
        """The payload. Raises LocalProtocolError for counts over 65535."""
        if not 0 <= self.columns <= 0xFFFF or not 0 <= self.params <= 0xFFFF:
            raise LocalProtocolError("a prepared statement has at most 65535 parameters and columns")
        return b"".join(
            (
                bytes((OK_HEADER,)),
                _u32(self.statement_id),
                self.columns.to_bytes(2, "little"),
                self.params.to_bytes(2, "little"),
                b"\0",
                min(self.warnings, 0xFFFF).to_bytes(2, "little"),
            )
        )

    @classmethod
    def parse(cls, payload: bytes) -> PrepareOk:
        """The answer; an ERR packet is the caller's to see first."""
        reader = PayloadReader(payload)
        if reader.integer(1) != OK_HEADER:
            raise RemoteProtocolError("not an answer to a prepare")
        statement_id = reader.integer(4)
        columns = reader.integer(2)
        params = reader.integer(2)
        reader.take(1)
        return cls(statement_id, columns, params, reader.integer(2))


@dataclass(frozen=True, slots=True)
class StmtSendLongData:
    """COM_STMT_SEND_LONG_DATA: a piece of one parameter's value. It has no answer, not even an error."""

    statement_id: int
    index: int
    data: bytes

    def build(self) -> bytes:
        """The payload."""
        head = bytes((Com.STMT_SEND_LONG_DATA.value,)) + _u32(self.statement_id)
        return head + self.index.to_bytes(2, "little") + self.data

    @classmethod
    def parse(cls, payload: bytes) -> StmtSendLongData:
        """The command."""
        reader = _open(payload, Com.STMT_SEND_LONG_DATA)
        statement_id = reader.integer(4)
        index = reader.integer(2)
        return cls(statement_id, index, reader.rest())


@dataclass(frozen=True, slots=True)
class StmtClose:
    """COM_STMT_CLOSE: forget a statement. It has no answer."""

    statement_id: int

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.STMT_CLOSE.value,)) + _u32(self.statement_id)

    @classmethod
    def parse(cls, payload: bytes) -> StmtClose:
        """The command."""
        return cls(_open(payload, Com.STMT_CLOSE).integer(4))


@dataclass(frozen=True, slots=True)
class StmtReset:
    """COM_STMT_RESET: drop a statement's long data and its cursor."""

    statement_id: int

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.STMT_RESET.value,)) + _u32(self.statement_id)

    @classmethod
    def parse(cls, payload: bytes) -> StmtReset:
        """The command."""
        return cls(_open(payload, Com.STMT_RESET).integer(4))


@dataclass(frozen=True, slots=True)
class StmtFetch:
    """COM_STMT_FETCH: the next rows of a statement's cursor."""

    statement_id: int
    rows: int

    def build(self) -> bytes:
        """The payload."""
        return bytes((Com.STMT_FETCH.value,)) + _u32(self.statement_id) + _u32(self.rows)

    @classmethod
    def parse(cls, payload: bytes) -> StmtFetch:
        """The command."""
        reader = _open(payload, Com.STMT_FETCH)
        statement_id = reader.integer(4)
        return cls(statement_id, reader.integer(4))
