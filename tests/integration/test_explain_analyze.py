"""EXPLAIN ANALYZE of a SELECT whose rows are gathered tells how much that was."""

from __future__ import annotations

import re

from shardproxy.local.flavors import FlavorName
from tests.beside import FAR
from tests.proxy import ProxyUnderTest

WINDOW = "SELECT uid, ROW_NUMBER() OVER (ORDER BY balance DESC) FROM users WHERE balance > 15"
SELF = "SELECT a.uid FROM users a JOIN users b ON a.balance = b.balance + 10"


def test_what_was_gathered(proxy: ProxyUnderTest, flavor: FlavorName) -> None:
    verb = "EXPLAIN ANALYZE" if flavor == "mysql" else "ANALYZE FORMAT=JSON"
    with proxy.connect() as connection, connection.cursor() as cursor:
        cursor.execute("DELETE FROM users")
        cursor.execute(f"INSERT INTO users VALUES (1, 'a', 10), ({FAR}, 'b', 20), (2, 'c', 30)")
        for sql in (WINDOW, SELF):
            cursor.execute(f"{verb} {sql}")
            [[plan]] = cursor.fetchall()
            assert "rows" in plan
            cursor.execute("SHOW WARNINGS")
            notes = [message for _, _, message in cursor.fetchall() if message.startswith("gathered")]
            assert notes
            assert re.fullmatch(r"gathered [23] rows, [0-9]+ bytes of main.users from 2 shards", notes[0])
        cursor.execute(f"{verb} SELECT * FROM users WHERE uid = 1")
        assert len(cursor.fetchall()) == 1
        cursor.execute("SHOW WARNINGS")
        assert not [message for _, _, message in cursor.fetchall() if message.startswith("gathered")]
