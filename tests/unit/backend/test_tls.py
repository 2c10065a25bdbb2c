"""TLS over memory: whatever the pieces, what one side writes the other reads, and the end is told once."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shardproxy.backend.tls import TlsTransport, hand_over

NAME = "db.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for NAME and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    encoding = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(encoding)
    )
    return path


class Below(asyncio.Transport):
    """A plain transport whose bytes wait in `sent` until the test carries them over."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 5)})
        self.sent: deque[int] = deque()
        self.protocol: Any = None
        self.closing = False
        self.aborted = False
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.closing
        self.sent.extend(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Above:
    """A protocol that remembers what it was told."""

    def __init__(self, on_data: Callable[[bytes], None] = lambda data: None) -> None:
        self.received = bytearray()
        self.lost: list[Exception | None] = []
        self.pauses: list[str] = []
        self.on_data = on_data

    def data_received(self, data: bytes) -> None:
        assert data and not self.lost
        self.received += data
        self.on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.pauses.append("pause")

    def resume_writing(self) -> None:
        self.pauses.append("resume")


class Wire:
    """A client and a server, each TLS over a plain transport, and the wire between."""

    def __init__(self, certificate: Path, trusted: bool = True) -> None:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(certificate)
        asking = ssl.create_default_context(cafile=certificate if trusted else None)
        self.below_client, self.below_server = Below(), Below()
        self.at_client, self.at_server = Above(), Above()
        self.client = TlsTransport(self.below_client, self.at_client, asking, False, NAME)
        self.server = TlsTransport(self.below_server, self.at_server, serving, True)

    def carry(self, piece: int = 1 << 20) -> None:
        """Carry bytes in pieces until nobody has any left; tell of closed transports once."""
        sides = ((self.below_client, self.below_server), (self.below_server, self.below_client))
        busy = True
        while busy:
            busy = False
            for source, target in sides:
                while source.sent:
                    busy = True
                    data = bytes(source.sent.popleft() for _ in range(min(piece, len(source.sent))))
                    if not target.closing:
                        target.protocol.data_received(data)
        for one, other in sides:
            if one.closing and one.protocol is not None:
                ended, one.protocol = one.protocol, None
                ended.connection_lost(None)
                if other.protocol is not None:
                    other.closing = True
                    ended, other.protocol = other.protocol, None
                    ended.connection_lost(None)

    def open(self) -> Wire:
        self.server.start()
        self.client.start()
        self.carry()
        return self


@pytest.mark.parametrize("piece", [1, 3, 100, 1 << 20])
def test_bytes_go_both_ways_in_any_pieces(piece: int, certificate: Path) -> None:
    wire = Wire(certificate)
    wire.client.write(b"early, ")
    wire.client.write(b"before the handshake; ")
    wire.server.start()
    wire.client.start()
    wire.carry(piece)
    assert wire.at_server.received == b"early, before the handshake; "
    wire.server.write(b"greetings")
    wire.client.write(b"later")
    wire.client.write(b"")
    wire.carry(piece)
    assert wire.at_client.received == b"greetings"
    assert wire.at_server.received.endswith(b"; later")
    assert not wire.at_client.lost and not wire.at_server.lost


@pytest.mark.parametrize("early", [True, False])
def test_large_writes_arrive_whole(early: bool, certificate: Path) -> None:
    wire = Wire(certificate)
    if not early:
        wire.open()
    data = bytes(range(256)) * 4000  # many TLS records
    wire.client.write(data)
    wire.server.write(data)
    wire.open()
    assert wire.at_server.received == data and wire.at_client.received == data


@pytest.mark.parametrize("cut", [0, 1, 5, 100, None])
def test_a_client_hello_behind_the_ssl_request_is_not_lost(cut: int | None, certificate: Path) -> None:
    """The first TLS bytes may come in the same read as the packet that asks for TLS: all of them, or some."""
    wire = Wire(certificate)
    wire.client.start()
    wire.client.write(b"login")
    hello = bytes(wire.below_client.sent)
    wire.below_client.sent.clear()
    wire.server.start(hello[:cut])
    if cut is not None:
        wire.below_server.protocol.data_received(hello[cut:])
    wire.carry()
    assert wire.at_server.received == b"login"


def test_nothing_but_tls_goes_over_the_wire(certificate: Path) -> None:
    wire = Wire(certificate)
    wire.client.write(b"secret" * 10)
    assert not wire.below_client.sent, "not a byte before the handshake"
    wire.open()
    wire.client.write(b"secret" * 10)
    assert wire.below_client.sent and b"secret" not in bytes(wire.below_client.sent)


def test_bytes_that_are_not_tls_end_the_connection_with_the_reason(certificate: Path) -> None:
    wire = Wire(certificate)
    wire.server.start(b"\x03\0\0\2SELECT 1 in plain text")
    wire.carry()
    (reason,) = wire.at_server.lost
    assert isinstance(reason, ssl.SSLError)
    assert wire.below_server.closing and not wire.at_server.received


def test_bytes_that_are_not_tls_after_the_handshake(certificate: Path) -> None:
    wire = Wire(certificate).open()
    wire.below_server.protocol.data_received(b"\x17\x03\x03\x00\x20" + bytes(32))
    wire.carry()
    (reason,) = wire.at_server.lost
    assert isinstance(reason, ssl.SSLError)
    assert not wire.at_server.received


def test_a_server_that_is_not_trusted_is_refused_with_the_reason(certificate: Path) -> None:
    wire = Wire(certificate, trusted=False)
    wire.client.write(b"password")
    wire.open()
    (reason,) = wire.at_client.lost
    assert isinstance(reason, ssl.SSLCertVerificationError)
    assert not wire.at_server.received and len(wire.at_server.lost) == 1


@pytest.mark.parametrize("side", ["client", "server"])
def test_closing_sends_what_was_written_and_tells_the_other_side(side: str, certificate: Path) -> None:
    wire = Wire(certificate).open()
    closing, at_other = (wire.client, wire.at_server) if side == "client" else (wire.server, wire.at_client)
    closing.write(b"the last words")
    closing.close()
    closing.close()
    closing.write(b"too late")
    assert closing.is_closing()
    wire.carry()
    assert at_other.received == b"the last words"
    assert wire.at_client.lost == wire.at_server.lost == [None]


def test_closing_before_the_handshake(certificate: Path) -> None:
    wire = Wire(certificate)
    wire.client.write(b"never sent")
    wire.client.close()
    assert wire.below_client.closing and not wire.below_client.sent


def test_after_close_nothing_more_is_handed_up(certificate: Path) -> None:
    wire = Wire(certificate).open()
    wire.at_server.on_data = lambda data: wire.server.close()
    wire.client.write(b"x" * 40_000)  # three records
    wire.carry()
    assert 0 < len(wire.at_server.received) < 40_000
    late = Wire(certificate).open()
    late.client.write(b"crossing")
    late.server.close()
    late.below_server.protocol.data_received(bytes(late.below_client.sent))
    assert not late.at_server.received


def test_abort_is_at_once(certificate: Path) -> None:
    wire = Wire(certificate).open()
    wire.server.abort()
    assert wire.below_server.aborted and not wire.below_server.sent
    wire.server.write(b"nothing")
    assert wire.server.is_closing()


def test_another_protocol_takes_over_in_the_midst_of_a_read(certificate: Path) -> None:
    wire = Wire(certificate).open()
    second = Above()
    wire.at_server.on_data = lambda data: hand_over(wire.server, second)
    wire.client.write(b"a" * 16_384)
    wire.client.write(b"b" * 10)
    wire.carry()
    assert wire.at_server.received + second.received == b"a" * 16_384 + b"b" * 10
    assert second.received.endswith(b"b" * 10)
    wire.client.close()
    wire.carry()
    assert second.lost == [None] and not wire.at_server.lost


def test_flow_control_passes_through(certificate: Path) -> None:
    wire = Wire(certificate).open()
    wire.below_server.protocol.pause_writing()
    wire.below_server.protocol.resume_writing()
    assert wire.at_server.pauses == ["pause", "resume"]
    wire.server.pause_reading()
    assert wire.below_server.paused
    wire.server.resume_reading()
    assert not wire.below_server.paused
    assert wire.below_server.protocol.eof_received() is False


def test_extra_info(certificate: Path) -> None:
    wire = Wire(certificate).open()
    tls = wire.client.get_extra_info("ssl_object")
    assert tls.version() == "TLSv1.3"
    info = partial(wire.client.get_extra_info)
    assert (info("peername"), info("nothing"), info("nothing", 7)) == (("192.0.2.1", 5), None, 7)
