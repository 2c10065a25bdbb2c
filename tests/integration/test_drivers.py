"""Clients as applications use them, each through the proxy, on MariaDB and MySQL 9."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncmy
import mysql.connector
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import orm

from shardproxy.local import LocalCluster, ensure_tree, in_tree, unavailable
from shardproxy.protocol.mysql.columns import ColumnDefinition
from shardproxy.protocol.mysql.commands import ChangeUser, FieldList
from shardproxy.protocol.mysql.constants import SHA2_PLUGIN, Cap, Com
from tests.proxy import ProxyUnderTest, start_proxy
from tests.wire import Closed, RawClient, Refused

# ── the command line clients ──


def _clients() -> list[str]:
    return ["mariadb", "mysql"] if unavailable("mysql") is None else ["mariadb"]


@pytest.mark.parametrize("client", _clients())
def test_command_line_client(proxy: ProxyUnderTest, client: str) -> None:
    command = ["mariadb"] if client == "mariadb" else in_tree(ensure_tree(), "mysql")
    tls = ["--skip-ssl"] if client == "mariadb" else ["--ssl-mode=DISABLED", "--get-server-public-key"]

    def run(*arguments: str, password: str = "app") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, "--host=127.0.0.1", f"--port={proxy.port}", "--user=app", *tls, *arguments],
            env={"PATH": os.environ["PATH"], "MYSQL_PWD": password},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    script = (
        "INSERT INTO users VALUES (1, 'Ada', 10); INSERT INTO users VALUES (1001, 'Grace', 20);"
        "BEGIN; UPDATE users SET balance = 11 WHERE uid = 1; ROLLBACK;"
        "SELECT name, balance FROM users WHERE uid = 1; SELECT uid FROM users"
    )
    done = run("--batch", "--execute", script, "main")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["name\tbalance", "Ada\t10", "uid"]
    assert sorted(lines[3:]) == ["1", "1001"]
    assert run("--batch", "--execute", "SELECT COUNT(*) FROM users", "main").stdout.splitlines() == ["COUNT(*)", "2"]
    refused = run("--execute", "SELECT MIN(uid), GET_LOCK('a', 0) FROM users", "main")
    assert refused.returncode == 1
    assert "ERROR 9100" in refused.stderr or "ERROR 9101" in refused.stderr
    assert "ERROR 1045 (28000)" in run("--execute", "SELECT 1", password="wrong").stderr


# ── drivers ──


def test_pymysql(proxy: ProxyUnderTest) -> None:
    with proxy.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO orders (uid, oid, total) VALUES (%s, %s, %s)", [(5, n, f"{n}.50") for n in range(3)]
        )
        assert cursor.rowcount == 3
        connection.commit()
        cursor.execute("SELECT oid, total FROM orders WHERE uid = %s", (5,))
        assert sorted(cursor.fetchall()) == [(n, Decimal(f"{n}.50")) for n in range(3)]
        connection.rollback()
        cursor.execute("UPDATE orders SET total = 9 WHERE uid = 5 AND oid = 1")
        connection.rollback()
        cursor.execute("SELECT total FROM orders WHERE uid = 5 AND oid = 1")
        assert cursor.fetchone() == (Decimal("1.50"),)
    with pymysql.connections.Connection(
        host="127.0.0.1", port=proxy.port, user="app", password="app", cursorclass=pymysql.cursors.SSDictCursor
    ) as unbuffered, unbuffered.cursor() as cursor:  # fmt: skip
        cursor.execute("SELECT oid AS n FROM main.orders WHERE uid = 5")
        assert sorted(row["n"] for row in cursor.fetchall_unbuffered()) == [0, 1, 2]


def test_asyncmy(proxy: ProxyUnderTest) -> None:
    async def talk() -> None:
        connection = await asyncmy.connect(
            host="127.0.0.1", port=proxy.port, user="app", password="app", database="main"
        )
        async with connection, connection.cursor() as cursor:
            await cursor.execute("INSERT INTO users (uid, name) VALUES (%s, %s)", (2000, "Lin"))
            await connection.commit()
            await cursor.execute("SELECT name FROM users WHERE uid = %s", (2000,))
            assert await cursor.fetchone() == ("Lin",)
            await connection.ping()

    asyncio.run(talk())


@pytest.fixture
def connector(proxy: ProxyUnderTest) -> Iterator[Any]:
    """mysql-connector-python, its pure implementation."""
    connection = mysql.connector.connect(
        host="127.0.0.1", port=proxy.port, user="app", password="app", database="main", use_pure=True, ssl_disabled=True
    )
    yield connection
    connection.close()


def test_connector_python(connector: Any) -> None:
    cursor = connector.cursor()
    cursor.execute("INSERT INTO users VALUES (%s, %s, %s)", (7, "Mia", 3))
    connector.commit()
    cursor.execute("SELECT * FROM users WHERE uid = 7")
    assert cursor.fetchall() == [(7, "Mia", 3)]
    connector.reset_session()
    connector.cmd_change_user("app", "app", "hashed")
    cursor = connector.cursor()
    cursor.execute("SELECT DATABASE()")
    assert cursor.fetchall() == [("hashed",)]


def test_connector_python_prepared_cursors(connector: Any) -> None:
    cursor = connector.cursor(prepared=True)
    for uid in (8, 1008):
        cursor.execute("INSERT INTO users (uid, name, balance) VALUES (?, ?, ?)", (uid, f"n{uid}", -uid))
        connector.commit()
    for uid in (8, 1008, 8):
        cursor.execute("SELECT name, balance FROM users WHERE uid = ?", (uid,))
        assert cursor.fetchall() == [(f"n{uid}", -uid)]
        connector.commit()
    connector.autocommit = True
    cursor.execute("SELECT uid FROM users WHERE balance < ?", (0,))
    assert sorted(cursor.fetchall()) == [(8,), (1008,)]


class Base(orm.DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "people"
    id: orm.Mapped[int] = orm.mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))
    pets: orm.Mapped[list[Pet]] = orm.relationship(back_populates="person", order_by="Pet.number")


class Pet(Base):
    __tablename__ = "pets"
    person_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("people.id"), primary_key=True)
    number: orm.Mapped[int] = orm.mapped_column(primary_key=True, autoincrement=False)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(50))
    person: orm.Mapped[Person] = orm.relationship(back_populates="pets")


@pytest.fixture(params=["mysql+pymysql", "mysql+mysqlconnector"])
def engine(proxy: ProxyUnderTest, request: pytest.FixtureRequest) -> Iterator[sa.Engine]:
    url = f"{request.param}://app:app@127.0.0.1:{proxy.port}/main"
    arguments = {"use_pure": True} if "connector" in request.param else {}
    made = sa.create_engine(url, connect_args=arguments)
    yield made
    Base.metadata.drop_all(made)
    made.dispose()


def test_sqlalchemy_orm(proxy: ProxyUnderTest, engine: sa.Engine) -> None:
    Base.metadata.create_all(engine)
    for shard in proxy.cluster.shards:
        tables = {name for (name,) in shard.primary.rows("SHOW TABLES FROM main")}
        assert {"people", "pets"} <= tables
    with orm.Session(engine) as session, session.begin():
        session.add(Person(id=1, name="Ada", pets=[Pet(number=1, name="Rex"), Pet(number=2, name="Tom")]))
    with orm.Session(engine) as session, session.begin():
        session.add(Person(id=1001, name="Grace", pets=[Pet(number=1, name="Bit")]))
    with orm.Session(engine) as session:
        ada = session.get(Person, 1)
        assert ada is not None
        assert [pet.name for pet in ada.pets] == ["Rex", "Tom"]
        session.rollback()
        joined = sa.select(Pet.name, Person.name).join(Person, Pet.person_id == Person.id).where(Person.id == 1001)
        assert session.execute(joined).all() == [("Bit", "Grace")]
        session.rollback()
        grace = session.get(Person, 1001)
        assert grace is not None
        grace.name = "Hopper"
        session.flush()
        session.rollback()
        assert session.scalars(sa.select(Person.name).where(Person.id == 1001)).all() == ["Grace"]
    with orm.Session(engine) as session, session.begin():
        person = session.get(Person, 1)
        assert person is not None
        session.delete(person.pets[1])
        person.name = "Lovelace"
    assert proxy.primary(0).rows("SELECT p.name, q.name FROM main.people p JOIN main.pets q ON p.id = q.person_id") == [
        ("Lovelace", "Rex")
    ]
    assert proxy.primary(1).rows("SELECT name FROM main.people") == [("Grace",)]


def test_sqlalchemy_reads_the_tables_from_the_servers(proxy: ProxyUnderTest, engine: sa.Engine) -> None:
    inspector = sa.inspect(engine)
    assert "users" in inspector.get_table_names()
    assert [c["name"] for c in inspector.get_columns("users")] == ["uid", "name", "balance"]
    assert inspector.get_pk_constraint("users")["constrained_columns"] == ["uid"]
    assert inspector.has_table("people") is False


# ── authentication ──


@pytest.mark.parametrize(
    ("user", "password"),
    [("app", "app"), ("native", "native's secret"), ("sha2", "sha2's secret"), ("sha2hex", "hexed")],
)
def test_every_stored_form_of_a_password(proxy: ProxyUnderTest, user: str, password: str) -> None:
    """The first login of a form needs the password itself (RSA here), the second is known."""
    for _ in range(2):
        with proxy.connect(user=user, password=password) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT CURRENT_USER()")
            assert cursor.fetchone() == (f"{user}@%",)
    for wrong in ("", password + "x", "x"):
        with pytest.raises(pymysql.err.OperationalError) as refused:
            proxy.connect(user=user, password=wrong)
        assert refused.value.args[0] == 1045


def test_unknown_users_are_told_what_wrong_passwords_are_told(proxy: ProxyUnderTest) -> None:
    messages = []
    for user in ("app", "nobody"):
        with pytest.raises(pymysql.err.OperationalError) as refused:
            proxy.connect(user=user, password="wrong")
        messages.append(refused.value.args[1].replace(user, "USER"))
    assert messages[0] == messages[1]


def test_rejected_is_terminal(proxy: ProxyUnderTest) -> None:
    """After the ERR nothing is read any more: a query sent behind it is not run."""
    with RawClient(proxy.port, "", password="") as client:
        client.auth.user = "sha2"
        client.auth.feed(client.receive())
        client.send(client.auth.response(), 1)
        answer = client.receive()
        assert answer[:1] == b"\xff" and int.from_bytes(answer[1:3], "little") == 1045
        client.write(b"\x22\0\0\0\x03INSERT INTO users VALUES (1,'x',1)")
        client.expect_closed()
    assert proxy.primary(0).rows("SELECT * FROM main.users") == []


def test_default_keyspace_and_rights(proxy: ProxyUnderTest) -> None:
    with proxy.connect(user="hashed_only", password="hashed_only", database=None) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT DATABASE()")
        assert cursor.fetchone() == ("hashed",)
        for statement in ("USE main", "SELECT * FROM main.users WHERE uid = 1",
                          "/*shardproxy: shard=shard1*/ SELECT * FROM main.users",
                          "/*shardproxy: shard=shard1*/ SELECT * FROM mysql.user"):  # fmt: skip
            with pytest.raises(pymysql.err.MySQLError):
                cursor.execute(statement)
        cursor.execute("SELECT price FROM items WHERE sku = 'x'")
    with pytest.raises(pymysql.err.OperationalError) as refused:
        proxy.connect(user="hashed_only", password="hashed_only", database="main")
    assert refused.value.args[0] == 1044
    with pytest.raises(pymysql.err.OperationalError) as unknown:
        proxy.connect(database="nowhere")
    assert unknown.value.args[0] == 1049


def test_readers_cannot_write(proxy: ProxyUnderTest) -> None:
    proxy.primary(0).rows("INSERT INTO main.users VALUES (1, 'a', 1)")
    with proxy.connect(user="reader", password="reader") as connection:
        cursor = connection.cursor()
        for statement in (
            "INSERT INTO users VALUES (2, 'b', 1)", "UPDATE users SET balance = 2 WHERE uid = 1",
            "DELETE FROM users WHERE uid = 1", "REPLACE INTO users VALUES (1, 'c', 1)",
            "SELECT * FROM users WHERE uid = 1 FOR UPDATE", "TRUNCATE TABLE users", "DROP TABLE users",
            "INSERT INTO countries VALUES ('de', 'x')", "SELECT GET_LOCK('a', 0)",
            "/*shardproxy: shard=shard1*/ DELETE FROM users", "/*shardproxy: shard=shard1*/ CALL p()",
            "/*shardproxy: shard=shard1*/ GRANT SELECT ON *.* TO x",
            "/*shardproxy: shard=shard1*/ LOAD DATA LOCAL INFILE 'x' INTO TABLE users",
            "/*shardproxy: shard=shard1*/ FLUSH TABLES", "/*shardproxy: shard=shard1*/ LOCK TABLES users WRITE",
        ):  # fmt: skip
            with pytest.raises(pymysql.err.MySQLError) as refused:
                cursor.execute(statement)
            assert refused.value.args[0] in (1290, 9100), statement
        cursor.execute("BEGIN")
        cursor.execute("SELECT name FROM users WHERE uid = 1")
        assert cursor.fetchall() == (("a",),)
        cursor.execute("COMMIT")
        cursor.execute("SET NAMES utf8mb4")
        cursor.execute("SHOW TABLES")
    assert proxy.primary(0).rows("SELECT * FROM main.users") == [(1, "a", 1)]


# ── TLS ──


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tls_proxy(cluster: LocalCluster, certificate: Path) -> Iterator[ProxyUnderTest]:
    running = start_proxy(
        cluster,
        "tls-proxy",
        proxy={"workers": 1, "drain_timeout": "100ms"},
        listen={"tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem")},
    )
    yield running
    running.process.stop()


@pytest.mark.parametrize(
    ("user", "password"), [("app", "app"), ("sha2", "sha2's secret"), ("native", "native's secret")]
)
def test_tls(tls_proxy: ProxyUnderTest, certificate: Path, user: str, password: str) -> None:
    options: dict[str, Any] = {"user": user, "password": password, "ssl_ca": str(certificate / "cert.pem")}
    with tls_proxy.connect(**options, ssl_verify_cert=True, ssl_verify_identity=True) as connection:
        assert isinstance(connection._sock, ssl.SSLSocket)
        cursor = connection.cursor()
        body = os.urandom(300_000)
        cursor.execute("REPLACE INTO bodies VALUES (1, _binary %s)", (body,))
        cursor.execute("SELECT body FROM bodies WHERE uid = 1")
        assert cursor.fetchone() == (body,)
    with tls_proxy.connect(user=user, password=password, ssl_disabled=True) as plain, plain.cursor() as cursor:
        assert not isinstance(plain._sock, ssl.SSLSocket)
        cursor.execute("SELECT 1")  # TLS is offered, not forced


def test_tls_with_connector_python(tls_proxy: ProxyUnderTest, certificate: Path) -> None:
    connection = mysql.connector.connect(
        host="127.0.0.1", port=tls_proxy.port, user="sha2", password="sha2's secret", database="main", use_pure=True,
        ssl_ca=str(certificate / "cert.pem"), ssl_verify_cert=True,
    )  # fmt: skip
    cursor = connection.cursor()
    cursor.execute("SELECT DATABASE()")
    assert cursor.fetchall() == [("main",)]
    connection.close()


def test_required_tls(cluster: LocalCluster, certificate: Path) -> None:
    running = start_proxy(
        cluster,
        "tls-only-proxy",
        proxy={"workers": 1, "drain_timeout": "100ms"},
        listen={
            "tls_cert": str(certificate / "cert.pem"), "tls_key": str(certificate / "key.pem"), "require_tls": True
        },
    )  # fmt: skip
    try:
        with pytest.raises(pymysql.err.MySQLError) as refused:
            running.connect(ssl_disabled=True)
        assert refused.value.args[0] == 3159
        with running.connect(ssl={"ca": str(certificate / "cert.pem")}) as connection:
            connection.cursor().execute("SELECT 1")
    finally:
        running.process.stop()


def test_tls_to_the_servers(cluster: LocalCluster) -> None:
    """MySQL 9 makes its own certificate; Debian's MariaDB has no TLS unless one is configured."""
    wanted = "required" if cluster.flavor == "mysql" else "preferred"
    running = start_proxy(
        cluster, "tls-to-servers", proxy={"workers": 1, "drain_timeout": "100ms"}, backend={"tls": wanted}
    )
    try:
        with running.connect() as connection, connection.cursor() as cursor:
            cursor.execute("/*shardproxy: shard=shard2*/ SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            [(_, cipher)] = cursor.fetchall()
            assert bool(cipher) == (wanted == "required")
            body = os.urandom(3_000_000)
            cursor.execute("REPLACE INTO bodies VALUES (1, _binary %s)", (body,))
            cursor.execute("SELECT body FROM bodies WHERE uid = 1")
            assert cursor.fetchone() == (body,)
    finally:
        running.process.stop()


# ── commands that are no statements ──


def test_change_user(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        client.query("SET @a = 1")
        client.query("SET NAMES latin1")
        before = client.rows("SELECT CONNECTION_ID()")
        _change_user(client, "native", b"native's secret", "hashed")
        assert client.rows("SELECT DATABASE(), @a, @@character_set_client") == [[b"hashed", None, b"utf8mb4"]]
        assert client.rows("SELECT CURRENT_USER()") == [[b"native@%"]]
        assert client.rows("SELECT CONNECTION_ID()") == before
        with pytest.raises(Refused) as refused:
            _change_user(client, "native", b"wrong", "hashed")
        assert refused.value.code == 1045
        client.expect_closed()


def _change_user(client: RawClient, user: str, password: bytes, database: str) -> None:
    """COM_CHANGE_USER with the plugin that the server then asks for."""
    from shardproxy.protocol.mysql.handshake import AuthMoreData, AuthSwitch
    from shardproxy.protocol.mysql.packets import parse_err
    from shardproxy.protocol.mysql.passwords import native_token, sha2_token
    from shardproxy.protocol.mysql.rsa_exchange import encrypt_password

    capabilities = int(Cap.PLUGIN_AUTH)
    client.send(ChangeUser(user, b"", database, 45, SHA2_PLUGIN).build(capabilities))
    switch = AuthSwitch.parse(client.receive())
    token = native_token if switch.auth_plugin == "mysql_native_password" else sha2_token
    client.send(token(password, switch.nonce), client.reader.next_seq)
    while (answer := client.receive())[:1] != b"\0":
        if answer[:1] == b"\xff":
            raise Refused(parse_err(answer))
        data = AuthMoreData.parse(answer).data
        if data == b"\x04":
            client.send(b"\x02", client.reader.next_seq)
        elif data != b"\x03":
            client.send(encrypt_password(password, switch.nonce, data), client.reader.next_seq)


def test_broken_change_user_closes_only_this_client(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client, RawClient(proxy.port) as other:
        client.send(bytes((Com.CHANGE_USER,)) + b"app\0\xff")
        with contextlib.suppress(Closed):
            assert client.receive()[:1] == b"\xff"
        assert other.rows("SELECT 1") == [[b"1"]]


def test_reset_connection(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        client.query("USE hashed")
        client.query("SET time_zone = '+03:00', autocommit = 0")
        client.query("SET @a = 1")
        client.query("INSERT INTO notes (text) VALUES ('x')")
        statement = client.prepare("SELECT 1")
        result = client.command(Com.RESET_CONNECTION)
        assert result.status & 2 and not result.status & 1
        state = client.rows("SELECT DATABASE(), @a, @@time_zone = '+03:00', @@autocommit")
        assert state == [[b"hashed", None, b"0", b"1"]]
        with pytest.raises(Refused) as gone:
            client.execute(statement)
        assert gone.value.code == 1243
        assert client.rows("SELECT LAST_INSERT_ID()") == [[b"0"]]
    assert proxy.primary(0).rows("SELECT * FROM hashed.notes") == []


def test_ping_statistics_and_init_db(proxy: ProxyUnderTest) -> None:
    with RawClient(proxy.port) as client:
        assert client.command(Com.PING).ok.affected == 0
        client.send(bytes((Com.STATISTICS,)))
        assert client.receive().startswith(b"Uptime: ")
        client.command(Com.INIT_DB, b"hashed")
        assert client.rows("SELECT DATABASE()") == [[b"hashed"]]
        for name, code in ((b"nowhere", 1049), (b"\xff\xfe", 1049)):
            with pytest.raises(Refused) as refused:
                client.command(Com.INIT_DB, name)
            assert refused.value.code == code
        assert client.rows("SELECT DATABASE()") == [[b"hashed"]]


@pytest.mark.parametrize("deprecate_eof", [True, False])
def test_field_list(proxy: ProxyUnderTest, deprecate_eof: bool) -> None:
    """MySQL 9 has dropped the command: whatever the server answers, the client gets it and goes on."""
    with RawClient(proxy.port, deprecate_eof=deprecate_eof) as client:
        client.send(FieldList(b"users", b"").build())
        first = client.receive()
        if first[:1] != b"\xff":
            names = []
            while first[:1] != b"\xfe":
                names.append(ColumnDefinition.parse(first, with_default=True).name)
                first = client.receive()
            assert names == [b"uid", b"name", b"balance"]
        elif proxy.mariadb:
            pytest.fail(f"COM_FIELD_LIST: {first!r}")
        client.send(FieldList(b"nothing", b"").build())
        assert client.receive()[:1] == b"\xff"
        assert client.rows("SELECT 1") == [[b"1"]]


@pytest.mark.parametrize("code", [0x00, 0x05, 0x08, 0x0A, 0x12, 0x15, 0x1E, 0x7F, 0xFF])
def test_unknown_commands_get_an_error_and_the_connection_lives(proxy_process: ProxyUnderTest, code: int) -> None:
    with RawClient(proxy_process.port) as client:
        for body in (b"", b"\0\0\0\0\0", b"x" * 1000):
            with pytest.raises(Refused) as refused:
                client.command(code, body)
            assert (refused.value.code, refused.value.err.sqlstate) == (1047, "08S01")
        assert client.rows("SELECT 1") == [[b"1"]]


def test_an_empty_packet_is_an_unknown_command(proxy_process: ProxyUnderTest) -> None:
    with RawClient(proxy_process.port) as client:
        client.send(b"")
        with pytest.raises(Refused) as refused:
            client.result()
        assert refused.value.code == 1047
        assert client.rows("SELECT 1") == [[b"1"]]


def test_quit_closes(proxy_process: ProxyUnderTest) -> None:
    with RawClient(proxy_process.port) as client:
        client.send(bytes((Com.QUIT,)))
        client.expect_closed()
