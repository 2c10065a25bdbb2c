"""The map store in etcd v3: for proxies on several machines.

An entry is etcd's key under `prefix`; its version is etcd's mod_revision, the store's revision is etcd's. A commit is
one etcd transaction.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Any

from shardproxy.errors import LeaseExpired, StoreConflict, StoreUnavailable, WatchLost
from shardproxy.store.gateway import Gateway, Refused
from shardproxy.store.interface import (
    Change,
    Changes,
    Condition,
    Delete,
    Document,
    Entry,
    Listing,
    Put,
    Write,
    checked,
    conflict_text,
    decode,
    key_bytes,
    prefix_end,
)

_AGAIN = 0.05  # seconds before a watch that ended at once is opened again


class EtcdStore:
    """A MapStore in an etcd cluster. prefix: what all keys there begin with, not empty."""

    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self._gateway = gateway
        self._prefix = key_bytes(prefix)

    async def get(self, key: str) -> Entry | None:
        answer = await self._gateway.read("/v3/kv/range", {"key": self._key(key)})
        found = answer.get("kvs")
        return self._entry(found[0]) if found else None

    async def list(self, prefix: str) -> Listing:
        answer = await self._gateway.read("/v3/kv/range", self._range(prefix))
        return Listing(tuple(map(self._entry, answer.get("kvs", ()))), _revision(answer))

    async def put(self, key: str, value: Document, expect: int, lease: str | None = None) -> int:
        return await self.commit([Condition(key, expect)], [Put(key, value, lease)])

    async def delete(self, key: str, expect: int) -> int:
        return await self.commit([Condition(key, expect)], [Delete(key)])

    async def commit(self, conditions: Sequence[Condition], writes: Sequence[Write], lasting: bool = True) -> int:
        encoded = checked(conditions, writes)
        body = {
            "compare": [
                {"key": self._key(c.key), "target": "MOD", "result": "EQUAL", "mod_revision": str(c.version)}
                for c in conditions
            ],
            "success": [self._operation(write, encoded[write.key]) for write in writes],
            "failure": [
                {"request_range": {"key": self._key(condition.key), "keys_only": True}} for condition in conditions
            ],
        }
        answer = await self._gateway.change("/v3/kv/txn", body)
        if answer.get("succeeded"):
            return _revision(answer)
        versions = [_version_found(part) for part in answer["responses"]]
        wrong = {c.key: found for c, found in zip(conditions, versions, strict=True) if found != c.version}
        raise StoreConflict(conflict_text(conditions, wrong), wrong)

    async def watch(self, prefix: str, after: int) -> AsyncGenerator[Changes, None]:
        silence = self._gateway.seconds
        while True:
            # A read that needs the cluster's majority: it shows that this endpoint is no cut-off one, whose watches
            # would stay silent. So a watch notices within twice the time-out that it hears nothing any more.
            head = await self._gateway.read("/v3/kv/range", {**self._range(prefix), "count_only": True})
            if _revision(head) < after:
                raise WatchLost(f"{self._gateway.name}: it has revision {_revision(head)} and no {after}: list anew")
            request = {"create_request": {**self._range(prefix), "start_revision": str(after + 1)}}
            heard = False
            try:
                async with aclosing(self._gateway.follow("/v3/watch", request, silence)) as messages:
                    async for message in messages:
                        heard = True
                        self._expect_whole(message, after)
                        for revision, events in groupby(message.get("events", ()), key=_event_revision):
                            after = revision
                            yield Changes(revision, tuple(map(self._change, events)))
            except Refused as error:
                raise StoreUnavailable(f"{self._gateway.name}: {error}") from error
            if not heard:
                await asyncio.sleep(_AGAIN)

    async def grant(self, seconds: int) -> str:
        return str((await self._gateway.change("/v3/lease/grant", {"TTL": str(seconds)}))["ID"])

    async def renew(self, lease: str) -> None:
        answer = await self._gateway.read("/v3/lease/keepalive", {"ID": lease})
        if int(answer.get("result", {}).get("TTL", 0)) <= 0:
            raise LeaseExpired(f"{self._gateway.name}: lease {lease} has ended")

    async def revoke(self, lease: str) -> None:
        try:
            await self._gateway.change("/v3/lease/revoke", {"ID": lease})
        except LeaseExpired:
            return

    async def close(self) -> None:
        await self._gateway.close()

    # ── etcd's JSON: bytes are base64, 64-bit integers are strings, zeros are left out ──

    def _key(self, key: str) -> str:
        return _base64(self._prefix + key_bytes(key))

    def _range(self, prefix: str) -> dict[str, object]:
        start = self._prefix + prefix.encode()
        end = prefix_end(start)
        assert end is not None  # a byte of UTF-8 is never 0xff
        return {"key": _base64(start), "range_end": _base64(end)}

    def _name(self, kv: Mapping[str, Any]) -> str:
        return b64decode(kv["key"])[len(self._prefix) :].decode()

    def _entry(self, kv: Mapping[str, Any]) -> Entry:
        name = self._name(kv)
        return Entry(name, decode(name, b64decode(kv.get("value", ""))), int(kv["mod_revision"]))

    def _change(self, event: Mapping[str, Any]) -> Change:
        name = self._name(event["kv"])
        deleted = event.get("type") == "DELETE"
        return Change(name, None if deleted else decode(name, b64decode(event["kv"].get("value", ""))))

    def _operation(self, write: Write, encoded: str | None) -> dict[str, object]:
        if encoded is None or isinstance(write, Delete):
            return {"request_delete_range": {"key": self._key(write.key)}}
        put = {"key": self._key(write.key), "value": _base64(encoded.encode())}
        return {"request_put": put if write.lease is None else {**put, "lease": write.lease}}

    def _expect_whole(self, message: Mapping[str, Any], after: int) -> None:
        forgotten = int(message.get("compact_revision", 0))
        if forgotten:
            raise WatchLost(f"{self._gateway.name}: changes after revision {after} were compacted: list anew")
        if message.get("canceled"):
            reason = message.get("cancel_reason", "no reason given")
            raise StoreUnavailable(f"{self._gateway.name}: the watch was ended: {reason}")


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _revision(answer: Mapping[str, Any]) -> int:
    return int(answer["header"]["revision"])


def _event_revision(event: Mapping[str, Any]) -> int:
    return int(event["kv"]["mod_revision"])


def _version_found(part: Mapping[str, Any]) -> int:
    found = part.get("response_range", {}).get("kvs")
    return int(found[0]["mod_revision"]) if found else 0
