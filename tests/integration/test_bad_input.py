"""What no well-behaved client sends. The client gets an ERR or is closed; nobody else notices; nothing leaks."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest

from shardproxy.protocol.mysql.constants import Cap, Com
from shardproxy.protocol.mysql.framing import packet
from shardproxy.protocol.mysql.packets import parse_err
from tests.proxy import ProxyUnderTest, eventually
from tests.wire import Closed, RawClient, Refused

SEED = 20261122


@pytest.fixture(autouse=True)
def unharmed(proxy: ProxyUnderTest) -> Iterator[None]:
    """After each test: another client works, client and pool counts are as before, no defect is in the log."""
    eventually(lambda: proxy.busy() == 0, "no connection is busy before")
    clients, pids = proxy.clients(), proxy.worker_pids()
    logged = proxy.process.log.stat().st_size
    with proxy.connect() as bystander, bystander.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO users (uid, name) VALUES (999, 'bystander')")
        yield
        cursor.execute("SELECT name FROM users WHERE uid = 999")
        assert cursor.fetchall() == (("bystander",),)
        cursor.execute("ROLLBACK")
    for _ in range(4):  # one on each worker, most likely
        with proxy.connect() as other, other.cursor() as cursor:
            cursor.execute("SELECT uid FROM users WHERE uid IN (999, 1999)")
            assert cursor.fetchall() == ()
    eventually(lambda: proxy.clients() == clients, "all clients of the test are gone")
    eventually(lambda: proxy.busy() == 0, "all connections are back in their pools")
    assert proxy.worker_pids() == pids, proxy.process.log_tail()
    with proxy.process.log.open() as log:
        log.seek(logged)
        written = log.read()
    for sign in ("internal error", "Fatal error", "Traceback", "never retrieved"):
        assert sign not in written, written


def exchange(port: int, data: bytes, close: bool = True) -> bytes:
    """Send bytes after the greeting, say that no more come, and read until the proxy closes. The bytes it sent."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        head = sock.recv(4096)
        assert head[4] == 10
        try:
            sock.sendall(data)
            if close:
                sock.shutdown(socket.SHUT_WR)
            received = b""
            while more := sock.recv(65536):
                received += more
        except ConnectionError:
            return b""
        return received


def the_error(data: bytes) -> int:
    """The number of the ERR packet that is all of `data`."""
    length = int.from_bytes(data[:3], "little")
    assert data[4] == 0xFF
    assert len(data) == 4 + length
    return parse_err(data[4:]).code


# ── before the login ──


def login_payload(user: bytes = b"app", database: bytes = b"main", capabilities: int = 0) -> bytes:
    """A handshake response with an empty password, built by hand so that it can be wrong."""
    wanted = capabilities or int(Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH | Cap.CONNECT_WITH_DB)
    return (
        struct.pack("<IIB23x", wanted, 1 << 24, 45) + user + b"\0" + b"\0" + database + b"\0"
        + b"caching_sha2_password\0"
    )  # fmt: skip


BROKEN_HANDSHAKES = (
    b"",
    b"\x00",
    b"\x00\x00\x00\x01",  # an empty packet
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS without the SSLRequest
    packet(login_payload(), 0),  # the greeting had 0
    packet(login_payload(), 2),
    packet(login_payload(), 255),
    b"\xff\xff\xff\x01" + bytes(1000),  # announces 16 MiB
    b"\xff\xff\x0f\x01",
    packet(login_payload(capabilities=int(Cap.PROTOCOL_41)), 1),
    packet(login_payload(capabilities=int(Cap.SSL | Cap.PROTOCOL_41))[:32], 1),  # TLS is not offered here
    packet(login_payload(capabilities=0xFFFFFFFF), 1),
    packet(login_payload(capabilities=0x00000001), 1),
    packet(bytes(32), 1),
    packet(b"\xff" * 200, 1),
    packet(login_payload(user=b"\xff\xfe\x80"), 1),
    packet(login_payload(user=b"a" * 60_000), 1),
    packet(login_payload(database=b"\xc3\x28"), 1),
    packet(login_payload(), 1) * 3,
    packet(login_payload(), 1) + packet(b"\xff" * 300, 3),
    packet(login_payload(), 1) + packet(b"x" * 300, 9),
)


def test_broken_handshakes(proxy: ProxyUnderTest) -> None:
    for data in BROKEN_HANDSHAKES:
        for close in (True, False):
            if not close and len(data) < 36:
                continue  # that one would have to wait for the login's time limit
            received = exchange(proxy.port, data, close)
            at = 0
            while at < len(received):  # whole packets: at most an authentication switch, then ERR
                length = int.from_bytes(received[at : at + 3], "little")
                assert received[at + 4] in (0xFE, 0xFF, 0x01), data
                at += 4 + length
            assert at == len(received)


def test_a_handshake_cut_anywhere(proxy: ProxyUnderTest) -> None:
    whole = packet(login_payload(), 1)
    for length in range(len(whole)):
        assert exchange(proxy.port, whole[:length]) == b""


def test_user_names_and_databases_that_are_no_utf8(proxy: ProxyUnderTest) -> None:
    for user, database in ((b"\xff\xfe", b"main"), (b"app", b"\xc3\x28"), (b"", b""), (b"'; --", b"main")):
        received = exchange(proxy.port, packet(login_payload(user, database), 1) + packet(b"", 3))
        assert received, (user, database)
        if received[4] == 0xFF:
            assert the_error(received) in (1043, 1045, 1049)


@pytest.mark.parametrize("step", [1, 4])
def test_clients_that_send_few_bytes_at_a_time(proxy: ProxyUnderTest, step: int) -> None:
    with RawClient(proxy.port, step=step) as client:
        assert client.query("INSERT INTO users VALUES (1, 'slowly', 5)").ok.affected == 1
        assert client.rows("SELECT name FROM users WHERE uid = 1") == [[b"slowly"]]
        assert client.rows("SELECT uid FROM users") == [[b"1"]]
        statement = client.prepare("SELECT balance FROM users WHERE uid = ?")
        for _ in range(3):
            assert client.execute(statement, [(8, False, 1)]).rows == [[5]]
        assert client.command(Com.PING).ok.affected == 0


# ── after the login ──


OUT_OF_ORDER = (
    b"\x01\x00\x00\x01\x0e",  # COM_PING with sequence id 1
    b"\x09\x00\x00\xff\x03SELECT 1",
    b"\xff\xff\xff\x00" + b"\x03" + b" " * 0xFFFFFE + b"\x01\x00\x00\x05 ",  # the second part is not number 1,
)


def test_wrong_sequence_ids(proxy: ProxyUnderTest) -> None:
    for data in OUT_OF_ORDER:
        with RawClient(proxy.port) as client:
            client.write(data)
            client.reader.next_seq = {b"\x01": 1, b"\x09": 1, b"\xff": 2}[data[:1]]
            with pytest.raises(Refused) as refused:
                client.result()
            assert refused.value.code == 1156
            client.expect_closed()


UNKNOWN = (
    0x00,
    0x05,
    0x07,
    0x0A,
    0x0B,
    0x0C,
    0x0D,
    0x0F,
    0x10,
    0x12,
    0x13,
    0x14,
    0x15,
    0x1D,
    0x1E,
    0x20,
    0x7F,
    0xFE,
    0xFF,
)


def test_unknown_commands(proxy: ProxyUnderTest) -> None:
    for code in UNKNOWN:
        with RawClient(proxy.port) as client:
            for body in (b"", b"\xff" * 40, b"users\0%"):
                with pytest.raises(Refused) as refused:
                    client.command(code, body)
                assert refused.value.code == 1047, code
            assert client.rows("SELECT 1") == [[b"1"]]


def test_an_empty_packet(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        client.send(b"")
        with pytest.raises(Refused) as refused:
            client.result()
        assert refused.value.code in (1047, 1065, 1835)
        assert client.rows("SELECT 1") == [[b"1"]]


BROKEN_COMMANDS = (
    bytes((Com.STMT_EXECUTE,)),
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00",
    bytes((Com.STMT_EXECUTE,)) + b"\xff\xff\xff\xff\x00\x01\x00\x00\x00",
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00",  # no parameters where one is due
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x08",
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x08\x00\x01\x02",
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfd\x00\xfe" + b"\xff" * 8 + b"x",
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x77\x00" + b"\x01" * 8,
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x07\x01\x00\x00\x00\x00\x00\x01",
    bytes((Com.STMT_EXECUTE,)) + b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\x0c\x00\x05\x01\x02\x03\x04\x05",
    bytes((Com.STMT_RESET,)),
    bytes((Com.STMT_RESET,)) + b"\x09\x09",
    bytes((Com.STMT_FETCH,)),
    bytes((Com.STMT_FETCH,)) + b"\x01\x00\x00\x00\x01\x00\x00\x00",
    bytes((Com.STMT_PREPARE,)),
    bytes((Com.STMT_PREPARE,)) + b"\xff\xfe",
    bytes((Com.STMT_PREPARE,)) + b"SELECT FROM WHERE ?",
    bytes((Com.STMT_PREPARE,)) + b"?",
    bytes((Com.INIT_DB,)),
    bytes((Com.INIT_DB,)) + b"\xff\xfe",
    bytes((Com.INIT_DB,)) + b"nowhere",
    bytes((Com.INIT_DB,)) + b"a`b'\"\0",
    bytes((Com.FIELD_LIST,)),
    bytes((Com.FIELD_LIST,)) + b"users",
    bytes((Com.FIELD_LIST,)) + b"nothing\0",
    bytes((Com.FIELD_LIST,)) + b"\xff\xfe\0\xff",
    bytes((Com.SET_OPTION,)),
    bytes((Com.SET_OPTION,)) + b"\x00\x00",
    bytes((Com.SET_OPTION,)) + b"\x09\x09",
)


def test_broken_commands(proxy: ProxyUnderTest) -> None:
    for payload in BROKEN_COMMANDS:
        with RawClient(proxy.port) as client:
            assert client.prepare("SELECT name FROM users WHERE uid = ?").ident == 1
            client.send(payload)
            with pytest.raises(Refused) as refused:
                client.result()
            assert 1000 <= refused.value.code < 10000, payload
            assert "internal" not in str(refused.value), payload
            assert client.rows("SELECT 1") == [[b"1"]]


UNANSWERED = (
    bytes((Com.STMT_CLOSE,)),
    bytes((Com.STMT_CLOSE,)) + b"\xff\xff\xff\xff",
    bytes((Com.STMT_SEND_LONG_DATA,)),
    bytes((Com.STMT_SEND_LONG_DATA,)) + b"\x01\x00\x00\x00",
    bytes((Com.STMT_SEND_LONG_DATA,)) + b"\x01\x00\x00\x00\xff\xffdata",
    bytes((Com.STMT_SEND_LONG_DATA,)) + b"\x09\x00\x00\x00\x00\x00data",
)


def test_broken_commands_that_have_no_answer(proxy: ProxyUnderTest) -> None:
    for payload in UNANSWERED:
        with RawClient(proxy.port) as client:
            statement = client.prepare("SELECT name FROM users WHERE uid = ?")
            client.send(payload)
            assert client.rows("SELECT 1") == [[b"1"]]
            assert client.execute(statement, [(8, False, 1)]).rows == []


NO_STATEMENTS = (
    b"",
    b" ",
    b";",
    b";;",
    b"\0",
    b"\xff\xfe\xfd",
    b"SELECT '\xff\xfe",
    b"SELECT * FROM us\xffers WHERE uid = 1",
    b"SELECT",
    b"SELECT * FROM",
    b"SELECT * FROM users WHERE uid = 1 AND (",
    b"SELECT 'unclosed",
    b'SELECT "unclosed',
    b"SELECT `unclosed",
    b"/*",
    b"/*!",
    b"/*shardproxy: shard=nowhere*/ SELECT 1",
    b"(" * 5000,
    b"USE \xff\xfe",
    b"SET NAMES '\xff\xfe'",
    b"SET sql_mode = '\xff\xfe'",
    b"SET time_zone = '\xff\xfe'",
    b"SET \xff = 1",
    b"KILL '\xff'",
    b"SHOW WARNINGS LIMIT \xff",
    b"DESCRIBE \xff\xfe",
    b"CREATE TABLE \xff\xfe (uid INT)",
    b"INSERT INTO \xff\xfe VALUES (1)",
    b"SELECT * FROM users WHERE uid IN (" + b"1," * 5000 + b")",
    b"INSERT INTO users VALUES",
    b"INSERT INTO users VALUES (",
    b"INSERT INTO users (uid, name) VALUES (1)",
    b"INSERT INTO users (uid, name, uid) VALUES (1, 'a', 2)",
    b"UPDATE users SET",
    b"UPDATE users SET uid",
    b"DELETE FROM",
    b"FROBNICATE THE users",
    b"SET",
    b"SET @",
    b"SET NAMES",
    b"SET NAMES nonsense",
    b"SET a.b.c.d = 1",
    b"USE",
    b"USE nowhere",
    b"KILL",
    b"KILL 4294967295",
    b"KILL QUERY x",
    b"BEGIN WORK NOW",
    b"COMMIT AND",
    b"SHOW",
    b"SHOW NONSENSE",
    b"EXPLAIN",
    b"DESCRIBE",
    b"SELECT 1; SELECT 2",
    b"SELECT ?",
    b"SELECT * FROM users WHERE uid = ?",
    b"CALL nothing()",
    b"CREATE TABLE",
    b"DROP",
    b"SELECT * FROM users WHERE uid = 1 INTO OUTFILE '/tmp/x'",
    b"LOAD DATA LOCAL INFILE 'x' INTO TABLE users",
    b"HANDLER users OPEN",
    b"XA START 'a'",
)

# A server may take these or not; they must not harm.
STRANGE = (
    b"/*!99999",
    b"SELECT DATABASE() AS \xff\xfe",
    b"SELECT @\xff\xfe",
    b"SAVEPOINT \xff\xfe",
    b"COMMIT",
    b"SHOW TABLES LIKE '\xff\xfe'",
    b"SELECT uid AS \xff\xfe FROM users",
    b"SELECT \xff\xfe() FROM users WHERE uid = 1",
    b"SELECT 1 /* unclosed",
    b"/* shardproxy: */ SELECT uid FROM users",
    b"/*shardproxy: nonsense*/ SELECT 1",
    b"SELECT " + b"(" * 2000 + b"1" + b")" * 2000 + b" FROM users WHERE uid = 1",
    b"SELECT " + b"1+" * 20000 + b"1",
    b"SELECT uid FROM users WHERE uid = 1" + b" AND (uid = 1" * 1500 + b")" * 1500,
    b"SELECT uid FROM users WHERE " + b"NOT " * 3000 + b"uid = 1",
    b"SELECT uid FROM users WHERE uid IN (" + b"1," * 20000 + b"1)",
    b"SELECT * FROM users WHERE uid = " + b"9" * 5000,
    b"SELECT * FROM users WHERE name = '\xc3\x28'",
    b"SELECT * FROM users PROCEDURE ANALYSE()",
    b"SELECT \xe2\x80\xae uid FROM users WHERE uid = 1",
    b"SELECT uid FROM users WHERE uid = 1 \xc2\xa0",
    b"SELECT 1e999",
    b"SELECT -",
    b"SELECT uid FROM users WHERE uid = 1e1000",
    b"SELECT uid FROM users WHERE uid = 0x" + b"f" * 2001,
    b"SELECT 1 FROM users WHERE uid = 1 UNION " * 300 + b"SELECT 1",
)


def ask(client: RawClient, sql: bytes, command: int = Com.QUERY) -> Refused | None:
    """The client's error for a statement, None when it has none; the connection must live on."""
    found = None
    try:
        if command == Com.QUERY:
            client.query(sql)
        else:
            client.prepare(sql)
    except Refused as refused:
        found = refused
    if found is not None:
        assert "internal" not in str(found), sql[:100]
        assert 1000 <= found.code < 10000, sql[:100]
    assert client.rows("SELECT 1") == [[b"1"]], sql[:100]
    return found


def test_text_that_is_no_statement(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        accepted = [sql[:100] for sql in NO_STATEMENTS if ask(client, sql) is None]
        assert accepted == []
        for sql in STRANGE:
            ask(client, sql)
        for sql in (*NO_STATEMENTS, *STRANGE):
            ask(client, sql, Com.STMT_PREPARE)
    assert proxy.primary(0).rows("SELECT COUNT(*) FROM main.users WHERE uid <> 999") == [(0,)]


def test_what_the_parser_does_not_know_goes_to_the_hinted_shard_as_it_is(proxy: ProxyUnderTest) -> None:
    statement = "HANDLER users OPEN AS h"
    with RawClient(proxy.port) as client:
        with pytest.raises(Refused) as refused:
            client.query(statement)
        assert refused.value.code == 9100
        proxy.primary(1).rows("INSERT INTO main.users VALUES (1001, 'b', 1)")
        hinted = "/*shardproxy: shard=shard2*/ SELECT name FROM users FORCE INDEX (PRIMARY) WHERE uid = 1001"
        assert client.rows(hinted) == [[b"b"]]
        assert client.query("/*shardproxy: shard=shard2*/ CHECKSUM TABLE users").rows
        with pytest.raises(Refused) as server:
            client.query("/*shardproxy: shard=shard2*/ FROBNICATE THE users")
        assert server.value.code == 1064, "the server's own syntax error"
        assert "FROBNICATE" in str(server.value)
        assert client.rows("SELECT 1") == [[b"1"]]


def test_bytes_that_are_no_utf8_pass_unchanged(proxy: ProxyUnderTest) -> None:
    value = bytes(range(1, 256)).replace(b"'", b"").replace(b"\\", b"")
    with RawClient(proxy.port) as client:
        client.query(b"INSERT INTO bodies VALUES (3, _binary '" + value + b"')")
        assert client.rows("SELECT body FROM bodies WHERE uid = 3") == [[value]]
        assert client.rows(b"SELECT uid FROM bodies WHERE uid = 3 AND body = _binary '" + value + b"'") == [[b"3"]]


# ── noise ──


def noise(dice: random.Random) -> bytes:
    """Random bytes; often with a header that fits, often a command with something wrong in it."""
    kind = dice.randrange(4)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 400))
    payload = dice.randbytes(dice.randrange(0, 60))
    if kind == 1:
        return packet(payload, dice.randrange(4))
    if kind == 2:
        texts = (b"SELECT * FROM users WHERE uid = 1", b"INSERT INTO users VALUES (1, 'a', 2)", b"SET NAMES utf8mb4")
        text = bytearray(dice.choice(texts))
        for _ in range(dice.randrange(1, 6)):
            text[dice.randrange(len(text))] = dice.randrange(256)
        return packet(b"\x03" + bytes(text), 0)
    return packet(bytes((dice.randrange(0x20),)) + payload, 0)


def test_noise_instead_of_a_login(proxy: ProxyUnderTest) -> None:
    dice = random.Random(SEED)
    for _ in range(200):
        data = dice.randbytes(dice.randrange(1, 300))
        if dice.random() < 0.7:
            whole = bytearray(packet(login_payload(), 1))
            for _ in range(dice.randrange(1, 12)):
                whole[dice.randrange(len(whole))] = dice.randrange(256)
            data = bytes(whole)
        exchange(proxy.port, data)


def test_noise_after_a_login(proxy: ProxyUnderTest) -> None:
    dice = random.Random(SEED + 1)
    for _ in range(200):
        with RawClient(proxy.port, seconds=20) as client:
            try:
                for _ in range(dice.randrange(1, 12)):
                    client.write(noise(dice))
                client.socket.shutdown(socket.SHUT_WR)
                while client.socket.recv(65536):
                    pass
            except (OSError, Closed):
                pass
