"""Messages of the connection phase: greeting, SSL request, handshake response, authentication switch and data.

Each message is a frozen dataclass with `build()` → payload and `parse(payload)` → message. `parse` raises
RemoteProtocolError for anything cut off, out of place or of an unsupported protocol version.

Capabilities are plain ints here (`Cap` members work too): IntFlag arithmetic is slow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from shardproxy.errors import LocalProtocolError, RemoteProtocolError
from shardproxy.protocol.mysql.constants import NONCE_LENGTH, Cap, Collation
from shardproxy.protocol.mysql.packets import EOF_HEADER, PayloadReader, lenenc_int, lenenc_str, null_str

_LONG_PASSWORD = Cap.LONG_PASSWORD.value
_CONNECT_WITH_DB = Cap.CONNECT_WITH_DB.value
_PROTOCOL_41 = Cap.PROTOCOL_41.value
_SSL = Cap.SSL.value
_SECURE_CONNECTION = Cap.SECURE_CONNECTION.value
_PLUGIN_AUTH = Cap.PLUGIN_AUTH.value
_CONNECT_ATTRS = Cap.CONNECT_ATTRS.value
_PLUGIN_AUTH_LENENC = Cap.PLUGIN_AUTH_LENENC.value
_ZSTD = Cap.ZSTD_COMPRESSION.value

_MARIADB_PREFIX = "5.5.5-"  # keeps MySQL replicas from taking MariaDB 10 for something older than 5.6
_CLIENT_HEAD = struct.Struct("<IIB23s")  # capabilities, max packet, collation, filler
SSL_REQUEST_LENGTH = _CLIENT_HEAD.size
PROTOCOL_VERSION = 10
MORE_DATA_HEADER = 0x01


def decode_name(value: bytes, what: str) -> str:
    """A name of the connection phase, which is UTF-8; anything else raises RemoteProtocolError."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RemoteProtocolError(f"{what} is not UTF-8") from None


@dataclass(frozen=True, slots=True)
class Greeting:
    """The server's first packet.

    `nonce` is 20 bytes without NUL bytes. `extended` holds MariaDB's extended capabilities (`MariaDbCap`); they are
    only on the wire when `capabilities` lacks LONG_PASSWORD.
    """

    server_version: str
    connection_id: int
    nonce: bytes
    capabilities: int
    charset: int
    status: int
    auth_plugin: str
    extended: int = 0

    @property
    def is_mariadb(self) -> bool:
        """Whether a MariaDB server speaks."""
        return "mariadb" in self.server_version.lower()

    @property
    def version(self) -> str:
        """The version without the prefix that MariaDB sets before its own."""
        if self.is_mariadb:
            return self.server_version.removeprefix(_MARIADB_PREFIX)
        return self.server_version

    def build(self) -> bytes:
        """The payload. Raises LocalProtocolError for a nonce of the wrong length or with a NUL byte."""
        if len(self.nonce) != NONCE_LENGTH or 0 in self.nonce:
            raise LocalProtocolError(f"a nonce is {NONCE_LENGTH} bytes other than NUL")
        capabilities = int(self.capabilities)
        reserved = bytes(10)
        if self.extended:
            if capabilities & _LONG_PASSWORD:
                raise LocalProtocolError("extended capabilities need LONG_PASSWORD to be off")
            reserved = bytes(6) + self.extended.to_bytes(4, "little")
        return b"".join(
            (
                bytes((PROTOCOL_VERSION,)),
                null_str(self.server_version.encode("utf-8"), "server version"),
                (self.connection_id & 0xFFFFFFFF).to_bytes(4, "little"),
                self.nonce[:8],
                b"\0",
                (capabilities & 0xFFFF).to_bytes(2, "little"),
                bytes((self.charset & 0xFF,)),
                (self.status & 0xFFFF).to_bytes(2, "little"),
                (capabilities >> 16 & 0xFFFF).to_bytes(2, "little"),
                bytes((NONCE_LENGTH + 1,)) if capabilities & _PLUGIN_AUTH else b"\0",
                reserved,
                self.nonce[8:] + b"\0",
                null_str(self.auth_plugin.encode("ascii", "replace"), "plugin name")
                if capabilities & _PLUGIN_AUTH
                else b"",
            )
        )

    @classmethod
    def parse(cls, payload: bytes) -> Greeting:
        """The greeting of a server of 4.1 or later, which every supported one is."""
        reader = PayloadReader(payload)
        version = reader.integer(1)
        if version != PROTOCOL_VERSION:
            raise RemoteProtocolError(f"server speaks protocol version {version}, expected {PROTOCOL_VERSION}")
        server_version = decode_name(reader.null_str(), "server version")
        connection_id = reader.integer(4)
        nonce = reader.take(8)
        reader.take(1)
        capabilities = reader.integer(2)
        charset = reader.integer(1)
        status = reader.integer(2)
        capabilities |= reader.integer(2) << 16
        nonce_length = reader.integer(1)
        reserved = reader.take(10)
        extended = 0 if capabilities & _LONG_PASSWORD else int.from_bytes(reserved[6:], "little")
        if not capabilities & _SECURE_CONNECTION or not capabilities & _PROTOCOL_41:
            raise RemoteProtocolError("server offers only authentication from before MySQL 4.1")
        nonce += reader.take(max(13, nonce_length - 8))[: NONCE_LENGTH - 8]
        auth_plugin = ""
        if capabilities & _PLUGIN_AUTH:
            auth_plugin = decode_name(reader.null_str(), "plugin name")
        return cls(server_version, connection_id, nonce, capabilities, charset, status, auth_plugin, extended)


@dataclass(frozen=True, slots=True)
class SslRequest:
    """What a client sends before it starts TLS: the head of a handshake response, 32 bytes."""

    capabilities: int
    max_packet: int
    charset: int

    def build(self) -> bytes:
        """The payload, with Cap.SSL set."""
        capabilities = int(self.capabilities) | _SSL
        return _CLIENT_HEAD.pack(capabilities, self.max_packet & 0xFFFFFFFF, self.charset & 0xFF, bytes(23))

    @classmethod
    def parse(cls, payload: bytes) -> SslRequest:
        """The request; the caller asks `is_ssl_request` first."""
        if not is_ssl_request(payload):
            raise RemoteProtocolError("not an SSL request")
        capabilities, max_packet, charset, _ = _CLIENT_HEAD.unpack(payload)
        return cls(capabilities, max_packet, charset)


def is_ssl_request(payload: bytes) -> bool:
    """Whether a client's first payload asks for TLS. A handshake response is longer than 32 bytes."""
    return len(payload) == SSL_REQUEST_LENGTH and bool(int.from_bytes(payload[:4], "little") & _SSL)


@dataclass(frozen=True, slots=True)
class HandshakeResponse:
    """The client's answer to the greeting (protocol 4.1).

    `auth_plugin` is "" when the client names none (no Cap.PLUGIN_AUTH). `attributes` are what the client says about
    itself: untrusted. `charset` is the low byte of a collation id. `zstd_level` matters only with ZSTD_COMPRESSION.
    """

    user: str
    auth_response: bytes
    database: str | None
    auth_plugin: str
    capabilities: int
    charset: int = Collation.UTF8MB4_GENERAL_CI.value
    max_packet: int = 1 << 24
    attributes: dict[str, str] = field(default_factory=dict)
    extended: int = 0
    zstd_level: int = 0

    def build(self) -> bytes:
        """The payload; which fields are sent follows from `capabilities`.

        Raises LocalProtocolError when a field cannot be sent under the capabilities.
        """
        capabilities = int(self.capabilities)
        filler = bytes(23)
        if not capabilities & _LONG_PASSWORD:
            filler = bytes(19) + self.extended.to_bytes(4, "little")
        parts = [
            _CLIENT_HEAD.pack(capabilities, self.max_packet & 0xFFFFFFFF, self.charset & 0xFF, filler),
            null_str(self.user.encode("utf-8"), "user name"),
            _auth_response(capabilities, self.auth_response),
        ]
        if capabilities & _CONNECT_WITH_DB:
            parts.append(null_str((self.database or "").encode("utf-8"), "database name"))
        elif self.database:
            raise LocalProtocolError("a database needs CONNECT_WITH_DB")
        if capabilities & _PLUGIN_AUTH:
            parts.append(null_str(self.auth_plugin.encode("utf-8"), "plugin name"))
        if capabilities & _CONNECT_ATTRS:
            parts.append(build_attributes(self.attributes))
        if capabilities & _ZSTD:
            parts.append(bytes((self.zstd_level & 0xFF,)))
        return b"".join(parts)

    @classmethod
    def parse(cls, payload: bytes) -> HandshakeResponse:
        """The response of a client of 4.1 or later. Bytes after the last field are ignored, as servers do."""
        reader = PayloadReader(payload)
        capabilities = reader.integer(4)
        if not capabilities & _PROTOCOL_41:
            raise RemoteProtocolError("client speaks a protocol from before MySQL 4.1")
        max_packet = reader.integer(4)
        charset = reader.integer(1)
        filler = reader.take(23)
        extended = 0 if capabilities & _LONG_PASSWORD else int.from_bytes(filler[19:], "little")
        user = decode_name(reader.null_str(), "user name")
        if capabilities & _PLUGIN_AUTH_LENENC:
            auth_response = reader.lenenc_str()
        elif capabilities & _SECURE_CONNECTION:
            auth_response = reader.take(reader.integer(1))
        else:
            auth_response = reader.null_str()
        database = None
        if capabilities & _CONNECT_WITH_DB:
            database = decode_name(reader.null_str(), "database name") or None
        auth_plugin = decode_name(reader.null_str(), "plugin name") if capabilities & _PLUGIN_AUTH else ""
        attributes = parse_attributes(reader) if capabilities & _CONNECT_ATTRS else {}
        zstd_level = reader.integer(1) if capabilities & _ZSTD else 0
        return cls(
            user,
            auth_response,
            database,
            auth_plugin,
            capabilities,
            charset,
            max_packet,
            attributes,
            extended,
            zstd_level,
        )


def _auth_response(capabilities: int, response: bytes) -> bytes:
    if capabilities & _PLUGIN_AUTH_LENENC:
        return lenenc_str(response)
    if capabilities & _SECURE_CONNECTION:
        if len(response) > 255:
            raise LocalProtocolError("an authentication response over 255 bytes needs PLUGIN_AUTH_LENENC")
        return bytes((len(response),)) + response
    return null_str(response, "authentication response")


def build_attributes(attributes: dict[str, str]) -> bytes:
    """Connection attributes as one length-encoded block of length-encoded keys and values."""
    block = b"".join(
        lenenc_str(key.encode("utf-8", "replace")) + lenenc_str(value.encode("utf-8", "replace"))
        for key, value in attributes.items()
    )
    return lenenc_int(len(block)) + block


def parse_attributes(reader: PayloadReader) -> dict[str, str]:
    """Connection attributes at the reader's position; bytes that are not UTF-8 are replaced."""
    block = PayloadReader(reader.lenenc_str())
    attributes = {}
    while block.left:
        key = block.lenenc_str().decode("utf-8", "replace")
        attributes[key] = block.lenenc_str().decode("utf-8", "replace")
    return attributes


@dataclass(frozen=True, slots=True)
class AuthSwitch:
    """The server asks the client to authenticate by another plugin, with this nonce (20 bytes)."""

    auth_plugin: str
    nonce: bytes

    def build(self) -> bytes:
        """The payload."""
        return bytes((EOF_HEADER,)) + null_str(self.auth_plugin.encode("utf-8"), "plugin name") + self.nonce + b"\0"

    @classmethod
    def parse(cls, payload: bytes) -> AuthSwitch:
        """The request; a lone 0xFE (`OldAuthSwitch`) is refused here."""
        reader = PayloadReader(payload)
        if reader.integer(1) != EOF_HEADER:
            raise RemoteProtocolError("not an authentication switch")
        auth_plugin = decode_name(reader.null_str(), "plugin name")
        return cls(auth_plugin, reader.rest().removesuffix(b"\0"))


@dataclass(frozen=True, slots=True)
class OldAuthSwitch:
    """The server asks for the password hash of before 4.1: one byte. Nobody should answer it."""

    def build(self) -> bytes:
        """The payload."""
        return bytes((EOF_HEADER,))

    @classmethod
    def parse(cls, payload: bytes) -> OldAuthSwitch:
        """The request."""
        if payload != bytes((EOF_HEADER,)):
            raise RemoteProtocolError("not an old authentication switch")
        return cls()


@dataclass(frozen=True, slots=True)
class AuthMoreData:
    """Data of an authentication plugin, server to client. Client to server the data goes without a header."""

    data: bytes

    def build(self) -> bytes:
        """The payload."""
        return bytes((MORE_DATA_HEADER,)) + self.data

    @classmethod
    def parse(cls, payload: bytes) -> AuthMoreData:
        """The data."""
        if not payload or payload[0] != MORE_DATA_HEADER:
            raise RemoteProtocolError("not authentication data")
        return cls(payload[1:])
