"""Long data of prepared statements (COM_STMT_SEND_LONG_DATA), and parameters of more than one packet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest

from shardproxy.local import LocalServer
from shardproxy.protocol.mysql.constants import Com, FieldType
from tests.integration.parameters import FAR, integer, text
from tests.proxy import ProxyUnderTest
from tests.wire import Prepared, RawClient


@pytest.fixture(params=[True, False], ids=["deprecate_eof", "eof"])
def client(proxy: ProxyUnderTest, request: pytest.FixtureRequest) -> Iterator[RawClient]:
    with RawClient(proxy.port, deprecate_eof=request.param) as made:
        yield made


@pytest.fixture
def server(lone: LocalServer, client: RawClient) -> Iterator[RawClient]:
    """The same client, of one server."""
    with RawClient(lone.port, lone.admin_user, lone.admin_password, deprecate_eof=client.deprecate_eof) as made:
        yield made


def test_long_data(client: RawClient, proxy: ProxyUnderTest) -> None:
    insert = client.prepare("REPLACE INTO bodies (uid, body) VALUES (?, ?)")
    blob = (FieldType.LONG_BLOB, False, b"in the packet")
    pieces = [os.urandom(700_000) for _ in range(4)]
    for uid in (1, FAR):
        for piece in pieces:
            client.send_long_data(insert, 1, piece)
        client.execute(insert, [integer(uid), blob], long_data=[1])
        shard = 0 if uid == 1 else 1
        assert proxy.primary(shard).rows("SELECT body FROM main.bodies") == [(b"".join(pieces),)]
        # It was for one execution: the next one has what its packet says.
        client.execute(insert, [integer(uid), blob])
        assert proxy.primary(shard).rows("SELECT body FROM main.bodies") == [(b"in the packet",)]
    client.send_long_data(insert, 1, b"")
    client.execute(insert, [integer(1), blob], long_data=[1])
    assert proxy.primary(0).rows("SELECT body FROM main.bodies") == [(b"",)]


def test_reset_forgets_long_data(client: RawClient, proxy: ProxyUnderTest) -> None:
    insert = client.prepare("REPLACE INTO bodies (uid, body) VALUES (?, ?)")
    client.send_long_data(insert, 1, b"forgotten")
    client.command(Com.STMT_RESET, insert.ident.to_bytes(4, "little"))
    client.execute(insert, [integer(1), (FieldType.BLOB, False, b"kept")])
    assert proxy.primary(0).rows("SELECT body FROM main.bodies") == [(b"kept",)]


def test_long_data_before_the_types_are_known_and_for_the_key(client: RawClient, server: RawClient) -> None:
    for session in (client, server):
        session.query("USE hashed")
        insert = session.prepare("INSERT INTO items (sku, price) VALUES (?, ?)")
        session.send_long_data(insert, 0, b"some ")
        session.send_long_data(insert, 0, b"key")
        session.execute(insert, [text(b"not sent"), integer(5)], long_data=[0])
        assert session.rows("SELECT price FROM items WHERE sku = 'some key'") == [[b"5.00"]]


def test_long_data_for_nobody_is_not_answered(client: RawClient) -> None:
    statement = client.prepare("SELECT ?")
    for index in (1, 65535):
        client.send_long_data(statement, index, b"x")
    client.send_long_data(Prepared(4711, [], []), 0, b"x")
    client.send(bytes((Com.STMT_SEND_LONG_DATA, 1)))
    assert client.rows("SELECT 1") == [[b"1"]]
    assert client.execute(statement, [text(b"y")]).rows == [[b"y"]]


def test_long_data_beyond_the_limit(narrow_process: ProxyUnderTest) -> None:
    """The client is closed: nothing grows without bound, and nobody else notices."""
    with RawClient(narrow_process.port) as client, RawClient(narrow_process.port) as other:
        statement = client.prepare("SELECT ?")
        with contextlib.suppress(ConnectionError):
            for _ in range(80):
                client.send_long_data(statement, 0, bytes(1 << 20))
        client.expect_closed()
        assert other.rows("SELECT 1") == [[b"1"]]


@pytest.mark.parametrize("order", ["uid, body", "body, uid"])
def test_parameters_over_16_mib(proxy: ProxyUnderTest, order: str) -> None:
    """The key stands before and behind the boundary of the first packet."""
    body = os.urandom(1 << 20) * 17
    with RawClient(proxy.port) as client:
        insert = client.prepare(f"INSERT INTO bodies ({order}) VALUES (?, ?)")
        for uid in (1, FAR):
            values = [integer(uid), (FieldType.LONG_BLOB, False, body)]
            client.execute(insert, values if order == "uid, body" else values[::-1])
        select = client.prepare("SELECT body FROM bodies WHERE uid = ?")
        for uid in (1, FAR):
            assert client.execute(select, [integer(uid)]).rows == [[body]]
        found = client.prepare("SELECT uid FROM bodies WHERE body = ? AND uid = ?")
        for _ in range(3):
            assert client.execute(found, [(FieldType.LONG_BLOB, False, body), integer(FAR)]).rows == [[FAR]]
    for shard in (0, 1):
        assert proxy.primary(shard).rows("SELECT COUNT(*) FROM main.bodies") == [(1,)]
