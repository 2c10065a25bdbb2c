"""Shutting out a proxy that does not acknowledge a map (R4): its connections end, and no new ones come.

Its account is locked on every primary, its connections are killed, and it counts as evicted when none is listed any
more: KILL returns before a COMMIT under way has ended. Where other proxies use the same account it cannot be locked.
Then a proxy can be left out only when its process is proved to be gone: it ran on this machine, and no such process is
here any more. Its connections are over once each that was there has ended or has been seen idle.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardproxy.backend.control import ControlConnection, Credentials, open_control
from shardproxy.errors import BackendError, ReshardError, SqlError
from shardproxy.store.interface import Condition, MapStore, Put
from shardproxy.topology.barrier import Identity, Standing
from shardproxy.topology.model import Server
from shardproxy.topology.stored import PROXIES

_LOOK = 0.02  # seconds between two looks at a server's connections
_IDLE = frozenset(("Sleep", "Binlog Dump", "Binlog Dump GTID"))  # dumps are the streams' of moves
_LONGEST = 60.0  # seconds until killed connections must be gone


@dataclass(frozen=True)
class Evictor:
    """credentials: of an account that may lock accounts and kill connections; primaries: of every shard."""

    store: MapStore
    primaries: Sequence[Server]
    credentials: Credentials
    seconds: float = 5.0

    async def evict(self, identity: Identity) -> bool:
        """Shut a proxy out; whether its account is locked now. Raises ReshardError when that is not possible, SqlError,
        BackendError."""
        others = [other for other in await self._identities() if other.account == identity.account]
        shared = [other for other in others if other.id != identity.id and other.standing is not Standing.EVICTED]
        if identity.account == self.credentials.user:
            shared.append(identity)  # it is our own account: we would lock ourselves out
        if shared and not gone(identity.place):
            raise ReshardError(
                f"proxy {identity.id} ({identity.place}) does not acknowledge the map, and cannot be shut out: its "
                f"account {identity.account} is used by others too. End it, or wait for it; give each proxy an "
                "account of its own (backend.user), then it can be locked"
            )
        await self._stand(identity, Standing.EVICTING)
        await asyncio.gather(*(self._on(primary, identity.account, bool(shared)) for primary in self.primaries))
        await self._stand(identity, Standing.EVICTED)
        return not shared

    async def readmit(self, account: str) -> None:
        """Let the account in again: its proxy has come back under a new identity, with the newest map."""
        for primary in self.primaries:
            async with await open_control(primary, self.credentials, self.seconds) as control:
                for name in await _accounts(control, account):
                    await control.execute(f"ALTER USER {name} ACCOUNT UNLOCK")

    async def _identities(self) -> list[Identity]:
        return [Identity.read(entry.key, entry.value) for entry in (await self.store.list(PROXIES)).entries]

    async def _stand(self, identity: Identity, standing: Standing) -> None:
        entry = await self.store.get(PROXIES + identity.id)
        if entry is None:
            return  # it has gone by itself
        now = Identity.read(entry.key, entry.value).model_copy(update={"standing": standing})
        await self.store.commit([Condition(entry.key, entry.version)], [Put(entry.key, now.document())])

    async def _on(self, primary: Server, account: str, shared: bool) -> None:
        deadline = asyncio.get_running_loop().time() + _LONGEST
        while True:
            try:
                async with await open_control(primary, self.credentials, self.seconds) as control:
                    if shared:
                        await _seen_idle(control, account, deadline)
                    else:
                        await _locked_out(control, account, deadline)
                return
            except (BackendError, SqlError) as error:
                if asyncio.get_running_loop().time() > deadline or isinstance(error, SqlError):
                    raise
                await asyncio.sleep(0.2)  # a server that is down has no connections, but it comes back


async def _locked_out(control: ControlConnection, account: str, deadline: float) -> None:
    for name in await _accounts(control, account):
        await control.execute(f"ALTER USER {name} ACCOUNT LOCK")
    while True:
        left = await _connections(control, account)
        if not left:
            return
        _check(control.server, account, deadline)
        for ident in left:
            try:
                await control.execute(f"KILL CONNECTION {ident}")
            except SqlError as error:
                if error.code != 1094:  # it has ended by itself
                    raise
        await asyncio.sleep(_LOOK)


async def seen_over(server: Server, credentials: Credentials, seconds: float, threads: Sequence[int] | None) -> None:
    """Wait until the connections with these numbers, None: all that are there now of this account, have ended or been
    idle, after their clients have gone. seconds: for each answer.

    Raises ReshardError when it takes too long, BackendError, SqlError.
    """
    deadline = asyncio.get_running_loop().time() + _LONGEST
    async with await open_control(server, credentials, seconds) as control:
        await _seen_idle(control, credentials.user, deadline, threads)


async def _seen_idle(
    control: ControlConnection, account: str, deadline: float, threads: Sequence[int] | None = None
) -> None:
    """Nobody reads the connections of a process that is gone: what such a one runs may go on to its end, and then the
    server finds it closed. Those that are idle again belong to somebody else."""
    doubted = {ident for ident, busy in (await _connections(control, account)).items() if busy}
    if threads is not None:
        doubted &= set(threads)
    while doubted:
        _check(control.server, account, deadline)
        await asyncio.sleep(_LOOK)
        doubted &= {ident for ident, busy in (await _connections(control, account)).items() if busy}


def _check(server: Server, account: str, deadline: float) -> None:
    if asyncio.get_running_loop().time() > deadline:
        raise ReshardError(f"{server.name}: connections of {account} do not end: look at its process list")


async def _accounts(control: ControlConnection, user: str) -> list[str]:
    """Quoted names of the accounts with this user name, on every host."""
    rows = await control.query("SELECT user, host FROM mysql.user WHERE user = %s", (user,))
    return [f"`{_text(row['user'])}`@`{_text(row['host'])}`" for row in rows]


async def _connections(control: ControlConnection, user: str) -> dict[int, bool]:
    """Ids of the account's connections → whether they run something that a proxy may have sent."""
    rows = await control.query(
        "SELECT id, command FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID()", (user,)
    )
    return {int(row["id"]): _text(row["command"]) not in _IDLE for row in rows}


def _text(value: object) -> str:
    found = value.decode() if isinstance(value, bytes) else str(value)
    return found.replace("`", "``")


# ── processes of this machine ──


def place_of(pid: int) -> str:
    """Where a process is, in words that no other process ever has: machine, boot, number, start."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {pid} {_started(pid)}"


def gone(place: str) -> bool:
    """Whether the process was on this machine and is here no more. False when that is not certain."""
    words = place.split()
    if len(words) != 4 or words[0] != socket.gethostname():
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return words[1] != boot or _started(int(words[2])) != words[3]


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; "" when there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = status[status.rindex(")") + 2 :].split()
    return "" if fields[0] == "Z" else fields[19]


def named(identities: Iterable[Identity]) -> str:
    """For people: the proxies that somebody waits for."""
    return ", ".join(f"{identity.id} ({identity.place.split()[0] or '?'})" for identity in identities)
