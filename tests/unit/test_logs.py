"""logs: form of a line, and what never gets into one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from shardproxy import logs
from shardproxy.errors import BackendError, ConfigError


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def _json_lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def _configured(level: str = "info", format: str = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, format, stream)
    return stream


def test_json_line() -> None:
    stream = _configured()
    logs.Log("pool").warning("pool_timeout", server="a/primary", waited_s=5.0, names=("x", "y"))
    [line] = _json_lines(stream)
    assert line["time"].endswith("Z")
    assert isinstance(line["pid"], int)
    rest = {k: v for k, v in line.items() if k not in ("time", "pid")}
    assert rest == {
        "level": "warning",
        "component": "pool",
        "event": "pool_timeout",
        "server": "a/primary",
        "waited_s": 5.0,
        "names": ["x", "y"],
    }


def test_text_line_is_one_line_and_quotes_what_is_ambiguous() -> None:
    stream = _configured(format="text")
    logs.Log("pool").info("opened", server="a/primary", reason="two words\nand=a break", n=3)
    [line] = stream.getvalue().splitlines()
    assert line.endswith(r'pool: opened server=a/primary reason="two words\nand=a break" n=3')
    assert " info " in line


def test_levels() -> None:
    stream = _configured("warning")
    log = logs.Log("x")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [line["event"] for line in _json_lines(stream)] == ["c", "d"]


@pytest.mark.parametrize("name", ["password", "backend_password", "password_hash", "auth_token", "sql", "bad_query"])
def test_secrets_and_statements_are_hidden(name: str) -> None:
    stream = _configured()
    logs.Log("x").info("e", **{name: "hunter2", "nested": {name: "hunter2", "fine": 1}})
    assert "hunter2" not in stream.getvalue()
    [line] = _json_lines(stream)
    assert line[name] == logs.HIDDEN
    assert line["nested"] == {name: logs.HIDDEN, "fine": 1}


@pytest.mark.parametrize("name", ["statement_id", "query_count", "digest", "server"])
def test_harmless_names_are_shown(name: str) -> None:
    assert logs.safe_fields({name: "x"}) == {name: "x"}


def test_bytes_are_counted_not_shown() -> None:
    assert logs.safe_fields({"packet": b"SELECT 'secret'"}) == {"packet": "15 bytes"}


def _raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_an_exception_shows_its_place_but_not_the_statement_it_quotes() -> None:
    stream = _configured()
    logs.Log("x").error("broke", _raised(BackendError("Duplicate entry 'bob@example.com' for key")))
    [line] = _json_lines(stream)
    assert line["error"] == "BackendError"
    assert line["raised_at"][0].endswith("_raised")
    assert "bob" not in stream.getvalue()


def test_messages_that_quote_no_statement_are_shown() -> None:
    stream = _configured()
    logs.Log("x").error("no_connection", _raised(ConnectionRefusedError(111, "Connection refused")))
    logs.Log("x").error("bad_file", _raised(ConfigError("shards.a: found 1; expected a table")))
    refused, bad = _json_lines(stream)
    assert refused["reason"] == "Connection refused"
    assert bad["reason"] == "shards.a: found 1; expected a table"


def test_fields_cannot_displace_the_head() -> None:
    stream = _configured()
    logs.Log("x").info("e", level="fake", component="fake")
    [line] = _json_lines(stream)
    assert (line["level"], line["component"]) == ("info", "x")


def test_libraries_are_cut_at_the_first_quotation() -> None:
    stream = _configured("debug")
    other = logging.getLogger("asyncio")
    other.info("not heard: only from warning on")
    other.error("Exception in callback %s", "feed(b'SELECT secret')")
    [line] = _json_lines(stream)
    assert line["event"] == "library"
    assert line["component"] == "asyncio"
    assert line["message"] == "Exception in callback feed"


def test_configure_again_replaces() -> None:
    first, second = _configured(), _configured()
    logs.Log("x").info("e")
    assert first.getvalue() == ""
    assert len(_json_lines(second)) == 1


@pytest.mark.parametrize(("level", "format"), [("loud", "json"), ("info", "xml")])
def test_unknown_words(level: str, format: str) -> None:
    with pytest.raises(ValueError, match=r"log (level|format) must be"):
        logs.configure(level, format)
