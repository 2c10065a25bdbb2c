"""admin.http against a control that answers from memory, over a real socket."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer

from shardproxy import logs
from shardproxy.admin.http import MAX_REQUEST, ExplainValue, make_app
from shardproxy.errors import RouteError, ShardproxyError


class Control:
    """Answers what it was given; raises what it was given."""

    def __init__(self, error: Exception | None = None, ready: tuple[bool, str] = (True, "")) -> None:
        self.error = error
        self.is_ready = ready
        self.explained: list[tuple[str, str | None, Sequence[ExplainValue]]] = []

    async def status(self) -> dict[str, Any]:
        if self.error:
            raise self.error
        return {"version": "1", "epoch": 7}

    async def topology(self) -> dict[str, Any]:
        return {"epoch": 7}

    async def explain(self, sql: str, schema: str | None, values: Sequence[ExplainValue]) -> dict[str, Any]:
        self.explained.append((sql, schema, values))
        return {"kind": "SELECT"}

    async def metrics(self) -> bytes:
        return b"shardproxy_map_epoch 7.0\n"

    def ready(self) -> tuple[bool, str]:
        return self.is_ready


Client = TestClient[Any, Any]


def _ask(control: Control, question: Callable[[Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with TestClient(TestServer(make_app(control))) as client:
            await question(client)

    asyncio.run(run())


def test_pages() -> None:
    async def question(client: Client) -> None:
        for path, expected in (("/healthz", "ok\n"), ("/readyz", "ready\n")):
            answer = await client.get(path)
            assert (answer.status, await answer.text()) == (200, expected)
        answer = await client.get("/metrics")
        assert await answer.text() == "shardproxy_map_epoch 7.0\n"
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        answer = await client.get("/api/status")
        assert await answer.json() == {"version": "1", "epoch": 7}
        answer = await client.get("/api/topology")
        assert await answer.json() == {"epoch": 7}

    _ask(Control(), question)


def test_not_ready_says_why() -> None:
    async def question(client: Client) -> None:
        answer = await client.get("/readyz")
        assert answer.status == 503
        assert await answer.text() == "a/primary: refused\nb/primary: refused\n"
        assert (await client.get("/healthz")).status == 200

    _ask(Control(ready=(False, "a/primary: refused\nb/primary: refused")), question)


def test_explain_passes_everything_on() -> None:
    control = Control()

    async def question(client: Client) -> None:
        body = {"sql": "SELECT ?", "schema": "shop", "values": [1, "x", None, 1.5]}
        answer = await client.post("/api/explain", json=body)
        assert (answer.status, await answer.json()) == (200, {"kind": "SELECT"})
        assert (await client.post("/api/explain", json={"sql": "SELECT 1"})).status == 200

    _ask(control, question)
    assert control.explained == [("SELECT ?", "shop", [1, "x", None, 1.5]), ("SELECT 1", None, [])]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "must be an object"),
        (b"{}", '"sql" must be a statement'),
        (b'{"sql": "  "}', '"sql" must be a statement'),
        (b'{"sql": "SELECT 1", "schema": 1}', '"schema" must be'),
        (b'{"sql": "SELECT 1", "values": {"a": 1}}', '"values" must be'),
        (b'{"sql": "SELECT 1", "values": [[1]]}', '"values" must be'),
        (b'{"sql": "SELECT 1", "shema": "x"}', "unknown key 'shema'"),
    ],
)
def test_bad_explain_requests(body: bytes, words: str) -> None:
    async def question(client: Client) -> None:
        answer = await client.post("/api/explain", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 400
        assert words in (await answer.json())["error"]["message"]

    _ask(Control(), question)


def test_explain_wants_json_by_name() -> None:
    # A page of another origin may post text/plain without asking the browser's user.
    async def question(client: Client) -> None:
        answer = await client.post("/api/explain", data=b'{"sql": "SELECT 1"}', headers={"Content-Type": "text/plain"})
        assert answer.status == 400
        assert "application/json" in (await answer.json())["error"]["message"]

    _ask(Control(), question)


def test_errors_of_the_transport_are_json_too() -> None:
    async def question(client: Client) -> None:
        answer = await client.get("/nowhere")
        assert (answer.status, await answer.json()) == (404, {"error": {"message": "Not Found"}})
        answer = await client.get("/api/explain")
        assert answer.status == 405
        assert "POST" in answer.headers["Allow"]
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/api/explain", data=b"x" * (MAX_REQUEST + 1), headers=headers)
        assert answer.status == 413
        assert "error" in await answer.json()

    _ask(Control(), question)


def test_an_sql_error_keeps_its_words_and_numbers() -> None:
    async def question(client: Client) -> None:
        answer = await client.get("/api/status")
        assert answer.status == 422
        assert await answer.json() == {"error": {"message": "no shard", "code": 9101, "sqlstate": "HY000"}}

    _ask(Control(error=RouteError("no shard")), question)


def test_other_errors_of_ours_keep_their_words() -> None:
    async def question(client: Client) -> None:
        answer = await client.get("/api/status")
        assert (answer.status, await answer.json()) == (500, {"error": {"message": "worker 2 does not answer"}})

    _ask(Control(error=ShardproxyError("worker 2 does not answer")), question)


def test_a_defect_is_logged_and_tells_the_caller_nothing() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)

    async def question(client: Client) -> None:
        answer = await client.get("/api/status")
        assert answer.status == 500
        assert (await answer.json())["error"]["message"] == "internal error (KeyError); see the log"

    _ask(Control(error=KeyError("hunter2")), question)
    assert "admin_request_failed" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_open_connections_do_not_disturb_each_other() -> None:
    async def run() -> None:
        async with TestServer(make_app(Control())) as server, ClientSession() as session:
            reader, writer = await asyncio.open_connection(server.host, server.port)
            writer.write(b"POST /api/explain HTTP/1.1\r\nHost: x\r\nContent-Le")  # and never more
            await writer.drain()
            async with session.get(server.make_url("/healthz")) as answer:
                assert answer.status == 200
            writer.close()
            await reader.read()

    asyncio.run(run())
