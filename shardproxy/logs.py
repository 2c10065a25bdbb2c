"""Structured logs: one event name and fields a line, as JSON or as text, on stderr.

    log = Log("pool")
    log.warning("pool_timeout", server="a/primary", waited_s=5.0)

Rules of this file: no line ever holds a secret or a literal of a statement. Fields named like one are replaced;
an exception gives its type and where it was raised, and its message only when it cannot quote a statement; records
of libraries lose everything from the first quotation on.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

from shardproxy.errors import ConfigError

HIDDEN = "[hidden]"
_ROOT = "shardproxy"
_SECRET_WORDS = frozenset({"password", "passwd", "secret", "token", "nonce", "credential", "credentials"})
_STATEMENT_WORDS = frozenset({"sql", "query", "statement", "literal", "literals", "values", "parameters", "params"})
_QUOTATION = re.compile(r"[\n(<\[{'\"`]")
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log:
    """Events of one component. Fields are strings, numbers, booleans, None, or lists and mappings of them."""

    __slots__ = ("_logger",)

    def __init__(self, component: str) -> None:
        self._logger = logging.getLogger(f"{_ROOT}.{component}")

    def debug(self, event: str, **fields: object) -> None:
        self._emit(logging.DEBUG, event, fields, None)

    def info(self, event: str, **fields: object) -> None:
        self._emit(logging.INFO, event, fields, None)

    def warning(self, event: str, error: BaseException | None = None, **fields: object) -> None:
        """Something to look at. `error`: what was raised."""
        self._emit(logging.WARNING, event, fields, error)

    def error(self, event: str, error: BaseException | None = None, **fields: object) -> None:
        """Something is broken. `error`: what was raised."""
        self._emit(logging.ERROR, event, fields, error)

    def _emit(self, level: int, event: str, fields: dict[str, object], error: BaseException | None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=error, extra={"fields": fields})


def configure(level: str = "info", format: str = "json", stream: TextIO | None = None) -> None:
    """Send all logs of this process, libraries included, to `stream` (stderr).

    level: "debug", "info", "warning" or "error"; libraries are heard from "warning" on. format: "json" or "text".
    May be called again. Raises ValueError for other words.
    """
    if level not in _LEVELS:
        raise ValueError(f"log level must be one of {', '.join(_LEVELS)}, not {level!r}")
    if format not in ("json", "text"):
        raise ValueError(f'log format must be "json" or "text", not {format!r}')
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger(_ROOT).setLevel(_LEVELS[level])


def safe_fields(fields: dict[str, object]) -> dict[str, object]:
    """`fields` with the values replaced whose names say that they may be secrets or statement text."""
    return {name: HIDDEN if _is_hidden(name) else _plain(value) for name, value in fields.items()}


def _is_hidden(name: str) -> bool:
    words = name.lower().split("_")
    # "statement_id" and "query_count" are harmless, "backend_password" and "password_hash" are not.
    return words[-1] in _STATEMENT_WORDS or not _SECRET_WORDS.isdisjoint(words)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return safe_fields({str(k): v for k, v in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, bytes):
        return f"{len(value)} bytes"  # bytes come from clients and servers
    return str(value)


def _described(error: BaseException) -> dict[str, object]:
    """Type and place of an exception; the message only of kinds that cannot quote a statement."""
    frames = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    described: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, OSError) and error.strerror:
        described["reason"] = error.strerror
    elif isinstance(error, ConfigError):
        described["reason"] = str(error)
    if frames:
        described["raised_at"] = frames
    return described


def _content(record: logging.LogRecord) -> tuple[str, str, dict[str, object]]:
    """Component, event and fields of a record."""
    error = _described(record.exc_info[1]) if record.exc_info and record.exc_info[1] else {}
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        return record.name.removeprefix(_ROOT + "."), record.getMessage(), {**safe_fields(fields), **error}
    message = _QUOTATION.split(record.getMessage(), maxsplit=1)[0].strip()
    return record.name, "library", {"message": message, **error}


def _time(record: logging.LogRecord) -> str:
    stamp = datetime.fromtimestamp(record.created, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        component, event, fields = _content(record)
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "pid": record.process,
            "component": component,
            "event": event,
        }
        # Fields first: one that is named like ours must not displace it.
        return json.dumps({**head, **fields, **head}, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        component, event, fields = _content(record)
        line = f"{_time(record)} {record.levelname.lower():<7} {record.process} {component}: {event}"
        return " ".join([line, *(f"{name}={_shown(value)}" for name, value in fields.items())])


def _shown(value: object) -> str:
    # Quoted whenever it could be taken for two fields or break the line.
    if isinstance(value, str) and re.fullmatch(r"[^\s\"=\x00-\x1f\x7f]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)


__all__ = ["HIDDEN", "Log", "configure", "safe_fields"]
