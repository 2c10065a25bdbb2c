"""The admin HTTP server: metrics for Prometheus, health for load balancers, JSON for `shardctl`.

It has no passwords: it listens on loopback unless told otherwise, changes nothing, and shows neither secrets nor
literals of other people's statements. Every error is `{"error": {"message": …}}`, with `code` and `sqlstate` when
MySQL clients would see them; the message is the one that they would see.

    GET  /metrics       Prometheus text
    GET  /healthz       200 while the supervisor runs
    GET  /readyz        200 when clients can be served, else 503 with a reason a line
    GET  /api/status    see `show.status`
    GET  /api/topology  see `show.topology`
    POST /api/explain   {"sql": "…", "schema": "…"?, "values": […]?} → see `show.explain`
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from aiohttp import web

from shardproxy.errors import ShardproxyError, SqlError
from shardproxy.logs import Log

MAX_REQUEST = 1 << 20  # bytes; larger than any statement worth explaining
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_log = Log("admin")

# What stands for a `?` of a prepared statement.
ExplainValue = str | int | float | None


class AdminControl(Protocol):
    """What the server shows; the supervisor has it. Everything returned is JSON-able."""

    async def status(self) -> dict[str, Any]:
        """As `show.status.status_json`."""

    async def topology(self) -> dict[str, Any]:
        """As `show.topology.topology_json`."""

    async def explain(self, sql: str, schema: str | None, values: Sequence[ExplainValue]) -> dict[str, Any]:
        """As `show.explain.explain_json`. A statement that gets an error is explained, not raised."""

    async def metrics(self) -> bytes:
        """As `metrics.Exposition.text`."""

    def ready(self) -> tuple[bool, str]:
        """Whether clients can be served; if not, the reasons, one a line."""


CONTROL = web.AppKey("control", AdminControl)


def make_app(control: AdminControl) -> web.Application:
    """The application; run it with aiohttp.web.AppRunner on `listen.admin`, access log off."""
    app = web.Application(middlewares=[_errors_as_json], client_max_size=MAX_REQUEST)
    app[CONTROL] = control
    app.add_routes(
        [
            web.get("/metrics", _metrics),
            web.get("/healthz", _healthz),
            web.get("/readyz", _readyz),
            web.get("/api/status", _status),
            web.get("/api/topology", _topology),
            web.post("/api/explain", _explain),
        ]
    )
    return app


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=await request.app[CONTROL].metrics(), headers={"Content-Type": _METRICS_TYPE})


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    ready, reason = request.app[CONTROL].ready()
    if ready:
        return web.Response(text="ready\n")
    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, text=reason.rstrip("\n") + "\n")


async def _status(request: web.Request) -> web.Response:
    return _json(await request.app[CONTROL].status())


async def _topology(request: web.Request) -> web.Response:
    return _json(await request.app[CONTROL].topology())


async def _explain(request: web.Request) -> web.Response:
    sql, schema, values = _explain_request(await _body(request))
    return _json(await request.app[CONTROL].explain(sql, schema, values))


class _BadRequest(ShardproxyError):
    """The request is not what the route takes."""


async def _body(request: web.Request) -> Any:
    # Only this type needs a permission that web pages of other origins do not have (CORS preflight).
    if request.content_type != "application/json":
        raise _BadRequest(f"the body must be application/json, not {request.content_type}")
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise _BadRequest("the body is not valid JSON in UTF-8") from error


def _explain_request(body: Any) -> tuple[str, str | None, Sequence[ExplainValue]]:
    if not isinstance(body, dict):
        raise _BadRequest('the body must be an object like {"sql": "SELECT 1"}')
    unknown = sorted(set(body) - {"sql", "schema", "values"})
    if unknown:
        raise _BadRequest(f"unknown key {unknown[0]!r}; known are sql, schema and values")
    sql, schema, values = body.get("sql"), body.get("schema"), body.get("values") or []
    if not isinstance(sql, str) or not sql.strip():
        raise _BadRequest('"sql" must be a statement')
    if schema is not None and not isinstance(schema, str):
        raise _BadRequest('"schema" must be a string or null')
    if not isinstance(values, list) or not all(v is None or isinstance(v, str | int | float) for v in values):
        raise _BadRequest('"values" must be a list of strings, numbers and nulls')
    return sql, schema, values


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, error.reason, headers=_allow(error))
    except _BadRequest as error:
        return _error(HTTPStatus.BAD_REQUEST, str(error))
    except SqlError as error:
        return _error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), code=error.code, sqlstate=error.sqlstate)
    except ShardproxyError as error:
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
    except Exception as error:
        _log.error("admin_request_failed", error, path=request.path)
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, f"internal error ({type(error).__name__}); see the log")


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _json(data: dict[str, Any], status: int = HTTPStatus.OK, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(data, status=status, headers=headers)


def _error(status: int, message: str, headers: dict[str, str] | None = None, **more: object) -> web.Response:
    return _json({"error": {"message": message, **more}}, status, headers)


__all__ = ["CONTROL", "MAX_REQUEST", "AdminControl", "ExplainValue", "make_app"]
