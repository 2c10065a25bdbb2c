"""SHOW TABLES of a keyspace whose single tables are on several shards: the shards' lists as one.

A table that several shards have stands in it once; names are in the order of their bytes, as servers give them. It is
asked of connections of its own, outside the session's transaction, which such lists are no part of.
"""

from __future__ import annotations

from shardproxy.errors import BackendError, RemoteProtocolError
from shardproxy.executor import single
from shardproxy.executor.request import Request
from shardproxy.protocol.mysql.framing import PacketReader
from shardproxy.protocol.mysql.packets import EOF_HEADER, build_eof, build_ok, read_lenenc_int, read_lenenc_str
from shardproxy.protocol.mysql.text import join_packets
from shardproxy.router.route import Route

_BINARY_HEAD = 2  # bytes of a binary row before its values: 0x00, and the NULL bitmap of at most six columns


async def table_lists(request: Request, found: Route) -> None:
    """The whole command. Raises SqlError."""
    client = request.client
    head: list[bytes] = []
    rows: dict[bytes, bytes] = {}  # name → row
    eof = False
    for shard in found.shards:
        connection = await single.checkout(client, shard, found.replica)
        try:
            reply = await request.run(connection)
        except BaseException:
            connection.pool.release(connection)
            raise
        connection.pool.checkin(connection)
        if reply.failed:
            raise BackendError(reply.error_message, reply.error_code, reply.sqlstate)
        eof = not connection.scanner.deprecate_eof
        first, listed = _parts(reply.data, eof)
        head = head or first
        for row in listed:
            name, _ = read_lenenc_str(row, _BINARY_HEAD if request.binary else 0)
            rows.setdefault(name, row)
    status = client.status()
    if eof:
        head.append(build_eof(status, 0))
    end = build_eof(status, 0) if eof else build_ok(0, 0, status, 0, header=EOF_HEADER)
    client.session.affected = -1
    client.session.warnings = 0
    told = [rows[name] for name in sorted(rows)][: client.session.profile.select_limit]
    client.write(join_packets([*head, *told, end], client.seq))
    client.finish()


def _parts(data: bytes, eof: bool) -> tuple[list[bytes], list[bytes]]:
    """Payloads of a whole result: the number of columns and their definitions; the rows. Raises RemoteProtocolError."""
    payloads = [payload for _, payload in PacketReader(len(data), next_seq=1).feed(data)]
    count, _ = read_lenenc_int(payloads[0], 0)
    first_row = 1 + count + eof
    if len(payloads) < first_row + 1 or payloads[-1][:1] != bytes((EOF_HEADER,)):
        raise RemoteProtocolError("a result set cut short")
    return payloads[: 1 + count], payloads[first_row:-1]
