"""Numbers of AUTO_INCREMENT columns on their way to a new home, beside proxies that want some."""

from __future__ import annotations

import asyncio
import threading

from shardproxy.reshard.bookkeeping import StreamName
from shardproxy.reshard.home_records import hand_numbers_over
from tests.proxy import eventually, transactions
from tests.reshard.sides import LOGIN, Sides


def test_a_proxy_that_looks_for_numbers_and_their_coming_do_not_wait_for_each_other(sides: Sides) -> None:
    """A proxy locks the row without name, and then a table's. Whoever brings the numbers does so in the same order:
    else one of the two is rolled back, and a client of the proxy's gets a deadlock that is none of its own."""
    where = f"keyspace = '{sides.database}'"
    for server, generation in ((sides.source, 1), (sides.target, 0)):
        server.rows("DELETE FROM _shardproxy.sequence")
        server.rows(
            "INSERT INTO _shardproxy.sequence (keyspace, name, next_value, generation) VALUES (%s, '', 0, %s), "
            "(%s, 'notes', %s, 0)",
            (sides.database, generation, sides.database, 700 * generation),
        )
    hand_over = hand_numbers_over(
        sides.server(sides.source), sides.server(sides.target), LOGIN, StreamName(sides.move_id, "forward", 1),
        sides.database,
    )  # fmt: skip
    with sides.target.connect("_shardproxy") as proxy, proxy.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(f"SELECT generation FROM sequence WHERE {where} AND name = '' LOCK IN SHARE MODE")
        handing = threading.Thread(target=lambda: asyncio.run(hand_over))
        handing.start()
        waiting = "trx_state = 'LOCK WAIT'"
        eventually(lambda: bool(transactions(sides.target, "1", waiting)), "the numbers wait for the proxy")
        cursor.execute("SET innodb_lock_wait_timeout = 5")
        cursor.execute(f"SELECT next_value FROM sequence WHERE {where} AND name = 'notes' FOR UPDATE")
        assert cursor.fetchall() == ((0,),)
        cursor.execute("COMMIT")
        handing.join()
    found = sides.target.rows(f"SELECT name, next_value, generation FROM _shardproxy.sequence WHERE {where}")
    assert sorted(found) == [("", 0, 1), ("notes", 700, 0)]
