"""`shardproxy`: the proxy itself."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

import shardproxy
from shardproxy.cli.terminal import DEFAULT_CONFIG, ConfigOption, Exit, ends_with_status, note
from shardproxy.config import load

app = typer.Typer(
    name="shardproxy",
    help="A proxy that makes many MySQL servers look like one.\n\nRun it: shardproxy run --config shardproxy.toml",
    epilog="Exit status: 0 ended by a signal, 1 failed, 2 unusable command line or configuration file.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"shardproxy {shardproxy.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of shardproxy itself; the help text is the app's."""


@app.command("run")
@ends_with_status
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[int | None, typer.Option(help="Instead of proxy.workers.")] = None,
    mysql_host: Annotated[str | None, typer.Option(help="Instead of listen.mysql.host.")] = None,
    mysql_port: Annotated[int | None, typer.Option(help="Instead of listen.mysql.port.")] = None,
    admin_port: Annotated[int | None, typer.Option(help="Instead of listen.admin.port.")] = None,
    log_level: Annotated[str | None, typer.Option(help="Instead of proxy.log_level.")] = None,
    log_format: Annotated[str | None, typer.Option(help="Instead of proxy.log_format.")] = None,
) -> None:
    """Run until SIGTERM or Ctrl-C; then finish what is under way (proxy.drain_timeout) and end.

    Examples:
      shardproxy run
      shardproxy run --config /etc/shardproxy.toml --workers 8
      shardproxy run --log-format text --log-level debug
    """
    given: dict[str, dict[str, Any]] = {
        "proxy": {"workers": workers, "log_level": log_level, "log_format": log_format},
        "listen.mysql": {"host": mysql_host, "port": mysql_port},
        "listen.admin": {"port": admin_port},
    }
    overrides = {table: {k: v for k, v in keys.items() if v is not None} for table, keys in given.items()}
    settings = load(config, os.environ, overrides)
    # Not before: `--help` and a wrong file need neither uvloop nor the rest of the proxy.
    from shardproxy.app.supervisor import run as supervise

    status = supervise(settings)
    if status:
        note(f"the proxy ended with status {status}; its log says why")
        raise typer.Exit(Exit.FAILED if status < 0 else status)


def main() -> None:
    """Entry point of the `shardproxy` program."""
    app()


if __name__ == "__main__":
    main()
