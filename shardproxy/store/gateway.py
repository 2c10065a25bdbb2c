"""etcd's JSON gateway over HTTP: one request to one of several endpoints, and what its failure means.

Why the gateway and not gRPC: the asyncio clients on the package index either speak to one endpoint without TLS and
lose their watches with the connection, or are no longer kept; and gRPC and protobuf are heavy packages whose versions
clash easily. aiohttp, which we need anyway, does all of it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import SimpleNamespace
from typing import Any

import aiohttp

from shardproxy.errors import LeaseExpired, StoreError, StoreOutcomeUnknown, StoreUnavailable

Message = dict[str, Any]

_LOST = (aiohttp.ClientError, TimeoutError, OSError)
_PAUSE = 0.05  # seconds between two rounds over all endpoints

_NOT_FOUND = 5  # gRPC's numbers
_UNAUTHENTICATED = 16
# Refused before anything was done: bad request, lease unknown, no permission, too many requests or no space, no such
# call, no login. Everything else may come after a change was handed to the cluster.
_NOTHING_DONE = frozenset({3, _NOT_FOUND, 7, 8, 12, _UNAUTHENTICATED})


class _Request:
    """sent: some of it may have left, so that it may be carried out."""

    def __init__(self) -> None:
        self.sent = False


class Refused(StoreError):
    """etcd answered with an error; code: gRPC's number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    @property
    def stale_login(self) -> bool:
        """Whether a new login may help: the token has ended, or users and rights were changed since it was given."""
        return self.code == _UNAUTHENTICATED or "revision of auth store is old" in str(self)


class Gateway:
    """Requests to an etcd cluster.

    endpoints: "http://host:port" or "https://…". seconds: the longest that a call takes, all its attempts together.
    login: user and password, None where etcd has no authentication.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        seconds: float,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.seconds = seconds
        self._endpoints = list(endpoints)  # the one that answered last comes first
        self._login = login
        self._token = ""
        connector = aiohttp.TCPConnector(limit=0, ssl=tls if tls is not None else True)
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_note_sent)  # comes before the first byte is written
        self._session = aiohttp.ClientSession(connector=connector, trace_configs=[trace])

    async def close(self) -> None:
        """End all requests and connections."""
        await self._session.close()

    @property
    def name(self) -> str:
        """For messages."""
        return f"map store etcd {', '.join(e.partition('://')[2] for e in self._endpoints)}"

    async def read(self, path: str, body: Mapping[str, object]) -> Message:
        """The answer to a request that changes nothing. Raises StoreUnavailable when no endpoint gives one."""
        try:
            return await self._ask(path, body, again=True)
        except Refused as error:
            raise StoreUnavailable(f"{self.name}: {error}") from error
        except StoreOutcomeUnknown as error:
            raise StoreUnavailable(str(error)) from error

    async def change(self, path: str, body: Mapping[str, object]) -> Message:
        """The answer to a change, which is sent once. Raises StoreUnavailable, LeaseExpired, StoreOutcomeUnknown."""
        try:
            return await self._ask(path, body, again=False)
        except Refused as error:
            if error.code == _NOT_FOUND:
                raise LeaseExpired(f"{self.name}: {error}") from error
            if error.code in _NOTHING_DONE:
                raise StoreUnavailable(f"{self.name}: {error}") from error
            raise StoreOutcomeUnknown(f"{self.name}: {error}: read what is there") from error

    async def follow(self, path: str, body: Mapping[str, object], silence: float) -> AsyncGenerator[Message, None]:
        """The messages of an answer that has no end, from one endpoint.

        It ends without an error after `silence` seconds without a message, or when the connection is lost or not to be
        had: the next call takes another endpoint. Raises Refused.
        """
        endpoint = self._endpoints[0]
        try:
            async with self._post(endpoint, path, body, self._share, silence, _Request()) as response:
                if response.status != 200:
                    raise _refused(await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        yield _result(line)
        except aiohttp.SocketTimeoutError:
            return  # silent: nothing wrong with that
        except _LOST:
            self._demote(endpoint)

    @property
    def _share(self) -> float:
        """Seconds for one endpoint, so that there is time left for the others."""
        return self.seconds / len(self._endpoints)

    async def _ask(self, path: str, body: Mapping[str, object], again: bool) -> Message:
        """again: the request may be sent more than once."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.seconds
        failures, logged_in, problem = 0, False, ""
        while (left := deadline - clock()) > 0:
            endpoint, request = self._endpoints[0], _Request()
            try:
                async with asyncio.timeout(left):
                    return await self._once(endpoint, path, body, min(self._share, left) if again else left, request)
            except _LOST as error:
                problem = _told(error) or problem
                if request.sent and not again:
                    text = f"{self.name}: the answer was lost ({problem or 'too late'}): read what is there"
                    raise StoreOutcomeUnknown(text) from error
            except Refused as error:
                if error.stale_login and self._login is not None and not logged_in:
                    logged_in, self._token = True, ""
                    continue
                if not again or error.code in _NOTHING_DONE:
                    raise
                problem = str(error)  # such as: no leader
            self._demote(endpoint)
            failures += 1
            if failures % len(self._endpoints) == 0:
                await asyncio.sleep(_PAUSE)
        raise StoreUnavailable(f"{self.name}: no answer within {self.seconds:g} s ({problem}); nothing was changed")

    async def _once(
        self, endpoint: str, path: str, body: Mapping[str, object], patience: float, request: _Request
    ) -> Message:
        if self._login is not None and not self._token:
            user, password = self._login
            login = {"name": user, "password": password}
            answer = await self._message(endpoint, "/v3/auth/authenticate", login, patience, _Request())
            self._token = str(answer["token"])
        return await self._message(endpoint, path, body, patience, request)

    async def _message(
        self, endpoint: str, path: str, body: Mapping[str, object], patience: float, request: _Request
    ) -> Message:
        async with self._post(endpoint, path, body, min(self._share, patience), patience, request) as response:
            data = await response.read()
            if response.status != 200:
                raise _refused(data)
            return _message_of(data)

    def _post(
        self,
        endpoint: str,
        path: str,
        body: Mapping[str, object],
        connect: float,
        read: float,
        request: _Request,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if self._session.closed:
            raise StoreUnavailable(f"{self.name}: it was closed")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=read)
        headers = {"Authorization": self._token} if self._token else None
        return self._session.post(
            endpoint + path, json=body, timeout=timeout, headers=headers, trace_request_ctx=request
        )

    def _demote(self, endpoint: str) -> None:
        """Ask the other endpoints first from now on."""
        if self._endpoints[0] == endpoint:
            self._endpoints.append(self._endpoints.pop(0))


def _refused(data: bytes) -> Refused:
    """The error in an answer's body: {"error": "…", "code": 14}, in newer versions {"message": "…", "code": 14}."""
    try:
        found = json.loads(data)
        return Refused(str(found.get("message") or found.get("error")), int(found.get("code", 2)))
    except (ValueError, AttributeError, TypeError):
        return Refused(f"not etcd's answer: {data[:80]!r}", 2)


def _message_of(data: bytes) -> Message:
    """Raises Refused for what is no message of etcd's, but perhaps some web server's."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.keys().isdisjoint(("header", "result", "error")):
        raise Refused(f"not etcd's answer: {data[:80]!r}", 2)
    return found


def _result(line: bytes) -> Message:
    found = _message_of(line)
    if "error" in found:
        raise Refused(str(found["error"].get("message")), int(found["error"].get("grpc_code", 2)))
    message: Message = found["result"]
    return message


async def _note_sent(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    context.trace_request_ctx.sent = True


def _told(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return ""  # our own deadline
    return str(error) or type(error).__name__
