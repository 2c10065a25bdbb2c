"""The sample data set: users and their orders, sharded by uid, and countries, which every shard has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event

import pymysql

from shardproxy.errors import LocalError
from shardproxy.local.cluster import LocalCluster
from shardproxy.local.server import LocalServer

KEYSPACE = "shop"
USERS = 100_000  # uids 1 to USERS
BORDER = 50_001  # the first uid of the second shard
ROWS_A_STATEMENT = 2_000

# One table of shardproxy.toml; the shards' names are LocalCluster's.
KEYSPACE_TOML = f"""\
[keyspaces.{KEYSPACE}]
key_type = "int"
map = "range"

[[keyspaces.{KEYSPACE}.ranges]]
from = "min"
to = {BORDER}
shard = "shard1"

[[keyspaces.{KEYSPACE}.ranges]]
from = {BORDER}
to = "max"
shard = "shard2"

[keyspaces.{KEYSPACE}.tables]
users = {{ key = "uid" }}          # rows live where uid says
orders = {{ key = "uid" }}         # beside the user's row: joins on uid stay on one shard
countries = {{ reference = true }} # every shard has all rows
"""

TABLES = (
    "CREATE TABLE users (uid BIGINT PRIMARY KEY, name VARCHAR(60) NOT NULL, email VARCHAR(80) NOT NULL, "
    "country CHAR(2) NOT NULL, joined DATE NOT NULL, KEY (email))",
    "CREATE TABLE orders (uid BIGINT NOT NULL, id INT NOT NULL, total DECIMAL(10,2) NOT NULL, placed DATE NOT NULL, "
    "PRIMARY KEY (uid, id))",
    "CREATE TABLE countries (code CHAR(2) PRIMARY KEY, name VARCHAR(60) NOT NULL)",
)

COUNTRIES = {
    "AR": "Argentina", "BR": "Brazil", "CA": "Canada", "CL": "Chile", "CN": "China", "DE": "Germany", "EG": "Egypt",
    "ES": "Spain", "FR": "France", "GB": "United Kingdom", "GH": "Ghana", "IN": "India", "IT": "Italy", "JP": "Japan",
    "KE": "Kenya", "MX": "Mexico", "NG": "Nigeria", "PL": "Poland", "SE": "Sweden", "TR": "Turkey",
    "US": "United States", "VN": "Vietnam", "ZA": "South Africa",
}  # fmt: skip
_CODES = tuple(COUNTRIES)
_FIRST = ("Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy", "John", "Katherine",
          "Ken", "Leslie", "Margaret", "Niklaus", "Radia", "Tony")  # fmt: skip
_LAST = ("Allen", "Backus", "Dijkstra", "Hamilton", "Hoare", "Hopper", "Johnson", "Knuth", "Lamarr", "Lamport",
         "Liskov", "Lovelace", "Perlman", "Shannon", "Thompson", "Turing", "Wirth")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many rows there are now, over all shards (countries: on each of them)."""

    users: int
    orders: int
    countries: int


def orders_of(uid: int) -> int:
    """How many orders the sample gives a user: 1 to 3."""
    return 1 + uid % 3


def email_of(uid: int) -> str:
    """A user's address; no two have the same."""
    return f"{_FIRST[uid % len(_FIRST)].lower()}.{uid}@example.com"


def load(cluster: LocalCluster, progress: Callable[[int], None]) -> Loaded:
    """Create the tables on both shards and fill them, the shards side by side; replicas have all of it in the end.

    progress: called with the number of rows just written, from several threads. Raises LocalError.
    """
    stop = Event()

    def fill(server: LocalServer, uids: range) -> None:
        try:
            with server.connect() as connection, connection.cursor() as cursor:
                for statement in (f"CREATE DATABASE {KEYSPACE}", f"USE {KEYSPACE}", *TABLES):
                    cursor.execute(statement)
                for rows, statement in _statements(uids):
                    if stop.is_set():
                        return
                    cursor.execute(statement)
                    progress(rows)
        except pymysql.err.MySQLError as error:
            raise LocalError(f"{server.name} cannot be filled with sample data: {error}") from error

    first, second = cluster.shards
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="demo-load") as pool:
        try:
            parts = [
                pool.submit(fill, first.primary, range(1, BORDER)),
                pool.submit(fill, second.primary, range(BORDER, USERS + 1)),
            ]
            for part in as_completed(parts):
                part.result()
        except BaseException:  # Ctrl-C, too: the pool waits for its threads
            stop.set()
            raise
    cluster.wait_replicated()
    return Loaded(USERS, sum(map(orders_of, range(1, USERS + 1))), len(COUNTRIES))


def total_rows() -> int:
    """All rows that `load` writes, as it reports them."""
    return USERS + sum(map(orders_of, range(1, USERS + 1))) + 2 * len(COUNTRIES)


def _statements(uids: range) -> Iterator[tuple[int, str]]:
    """INSERTs of many rows each, with the number of rows. The values hold nothing that needs quoting."""
    yield _insert("countries", [f"('{code}','{name}')" for code, name in COUNTRIES.items()])
    for start in range(uids.start, uids.stop, ROWS_A_STATEMENT):
        some = range(start, min(start + ROWS_A_STATEMENT, uids.stop))
        yield _insert("users", [_user(uid) for uid in some])
        yield _insert("orders", [_order(uid, number) for uid in some for number in range(1, orders_of(uid) + 1)])


def _insert(table: str, rows: list[str]) -> tuple[int, str]:
    return len(rows), f"INSERT INTO {table} VALUES " + ",".join(rows)  # noqa: S608  (our own rows)


def _user(uid: int) -> str:
    first, last = _FIRST[uid % len(_FIRST)], _LAST[uid // 17 % len(_LAST)]
    joined = f"20{10 + uid % 16}-{1 + uid // 16 % 12:02}-{1 + uid // 192 % 28:02}"
    return f"({uid},'{first} {last}','{email_of(uid)}','{_CODES[uid * 5 % len(_CODES)]}','{joined}')"


def _order(uid: int, number: int) -> str:
    cents = (uid * 7919 + number * 104_729) % 50_000 + 100
    return f"({uid},{number},{cents // 100}.{cents % 100:02},'2026-{1 + (uid + number) % 11:02}-{1 + uid % 28:02}')"
