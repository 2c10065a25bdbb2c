"""AUTO_INCREMENT when one table goes from a single shard to many: its server has counted, now the sequence does.

A table that has not been counted over shards yet needs nothing: a worker brings the sequence above all numbers before
it gives the first. One that has, went back, and goes again would go on where it stopped.
"""

from __future__ import annotations

import re

from shardproxy.reshard.columns import quote, quote_name
from shardproxy.reshard.link import LinkLogin, connect
from shardproxy.topology.model import Server

_COUNTER = re.compile(rb"\bAUTO_INCREMENT=([0-9]+)")


async def raise_sequence(home: Server, first: Server, login: LinkLogin, keyspace: str, table: str) -> None:
    """Bring the sequence, if there is one, to what the table's server would count next. While nobody writes to it.

    home: has the table; first: of the keyspace's first shard, which has its sequences. Raises BackendError, SqlError.
    """
    async with await connect(home, login) as link:
        name = quote_name(keyspace) + b"." + quote_name(table)
        [_, made] = (await link.query(b"SHOW CREATE TABLE " + name)).one()
    found = _COUNTER.search((made or b"").rpartition(b"\n")[2])
    if found is None:
        return
    async with await connect(first, login) as link:
        await link.query(
            b"UPDATE _shardproxy.sequence SET next_value = GREATEST(next_value, %s) "
            b"WHERE keyspace = %s AND name = %s AND next_value > 0"
            % (found[1], quote(keyspace.encode()), quote(table.encode()))
        )
