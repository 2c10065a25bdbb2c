"""The decision rows of transactions over several shards: how they are written, and how one is looked up.

A row in `_shardproxy.xa_decision` on the deciding shard D, keyed by the transaction's id. The coordinator inserts
'commit' inside D's transaction; whoever must know the outcome inserts 'abort' under the same key. Only one of the two
can be: that is the decision. A plain SELECT decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import time

from shardproxy.errors import SqlError
from shardproxy.session.xid import TransactionId

Asked = list[tuple[str, ...]]
Ask = Callable[[str], Awaitable[Asked]]  # runs one statement; raises SqlError with the server's number
TRIES = 20  # each waits a second for D's row lock
_DUPLICATE, _LOCK_WAIT, _DEADLOCK = 1062, 1205, 1213
_NO_SUCH_THREAD = 1094


def decision_text(xid: str, outcome: str, coordinator: str, by: str) -> str:
    """The INSERT of a decision row. xid: as an SQL literal."""
    return (  # xid is our own word
        "INSERT INTO _shardproxy.xa_decision (xid, outcome, coordinator, decided_by) "  # noqa: S608
        f"VALUES ({xid}, '{outcome}', '{coordinator}', '{by}')"
    )


def delete_text(xids: Sequence[str]) -> str:
    """The DELETE of commit rows that nobody needs any more."""
    listed = ", ".join(f"'{xid}'" for xid in xids)
    return f"DELETE FROM _shardproxy.xa_decision WHERE xid IN ({listed}) AND outcome = 'commit'"  # noqa: S608


def probe_texts(name: str) -> tuple[str, ...]:
    """Statements that show whether this server and account can decide transactions and list branches."""
    row = f"'probe.{name}'"
    return (
        "START TRANSACTION READ WRITE",
        decision_text(row, "abort", name, name),
        f"SELECT outcome FROM _shardproxy.xa_decision WHERE xid={row}",  # noqa: S608 — our own word
        f"DELETE FROM _shardproxy.xa_decision WHERE xid={row}",  # noqa: S608
        "ROLLBACK",
        "XA RECOVER",
    )


async def look_up(ask: Ask, ident: TransactionId, by: str) -> bool:
    """Whether the transaction is committed; it is aborted here when it is not decided. Step 8 of the protocol.

    ask: on the primary of D's shard, a connection of the caller's own. by: identity of who asks. Raises SqlError.

    The INSERT waits while the coordinator's own row is uncommitted. After a second of that, D's connection is killed.
    """
    await ask("SET SESSION TRANSACTION READ WRITE")
    await ask("SET autocommit=1, innodb_lock_wait_timeout=1")
    literal = f"'{ident.text}'"
    read = f"SELECT outcome FROM _shardproxy.xa_decision WHERE xid={literal} LOCK IN SHARE MODE"  # noqa: S608
    insert = decision_text(literal, "abort", ident.coordinator, by)
    error: SqlError | None = None
    for _ in range(TRIES):
        try:
            await ask(insert)
        except SqlError as refused:
            error = refused
        else:
            return False
        if error.code == _DUPLICATE:
            rows = await ask(read)
            if rows:
                return rows[0][0] == "commit"
        elif error.code == _LOCK_WAIT:
            await kill_thread(ask, ident.thread, ident.born)
        elif error.code != _DEADLOCK:
            raise error
    assert error is not None
    raise error


async def kill_thread(ask: Ask, thread: int, born: int) -> None:
    """KILL a connection that a transaction id names; not when the server has started since: ids begin anew then."""
    rows = await ask("SHOW GLOBAL STATUS LIKE 'Uptime'")
    if rows and time() - int(rows[0][1]) > born + 1:
        return
    try:
        await ask(f"KILL {thread}")
    except SqlError as error:
        if error.code != _NO_SUCH_THREAD:
            raise
