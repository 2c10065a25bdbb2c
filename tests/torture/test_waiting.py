"""A move waits for what goes on on proxies that live: while no write waits, only those that do not are shut out."""

from __future__ import annotations

import threading
from contextlib import closing

from tests.proxy import eventually, transactions
from tests.torture.moving_scene import scene


def test_a_statement_that_waits_for_a_lock_gets_no_proxy_shut_out() -> None:
    with scene("mariadb", "embedded", proxies=1) as set_up:
        server = set_up.cluster.shards[0].primary
        with closing(set_up.proxies[0].connect()) as client, closing(server.connect(database="main")) as other:
            locks, waits = other.cursor(), client.cursor()
            locks.execute("BEGIN")
            locks.execute("SELECT * FROM account WHERE id = 0 FOR UPDATE")
            update = threading.Thread(target=waits.execute, args=("UPDATE account SET n = n + 1 WHERE id = 0",))
            update.start()
            eventually(lambda: bool(transactions(server, "1", "trx_state = 'LOCK WAIT'")), "the statement waits", 20)
            led = set_up.shardctl("run", "main", "--move-range=3000:3500=shard2", "--measure-time=0", answer=0.5)
            led.close()

            def said() -> str:
                move = set_up.move()
                return "" if move is None else f"{move.stage.value} {move.problem}"

            eventually(lambda: said().startswith("prepared waits for statements"), "the move waits", 30)
            other.rollback()
            update.join(20)
            waits.execute("SELECT n FROM account WHERE id = 0")  # over the same connection
            assert waits.fetchall() == ((1,),)
            eventually(lambda: said() == "copying ", "the move goes on", 20)
            assert not set_up.locked()
        led.kill()
        led.wait()
