"""`shardctl`: everything an operator asks or tells a proxy and its servers."""

from __future__ import annotations

from typing import Annotated

import typer

import shardproxy
import shardproxy.cli.rebalance_lead  # its commands join those of cli.rebalance
import shardproxy.cli.rebalance_redis
from shardproxy.cli.check import check
from shardproxy.cli.ddl import app as ddl
from shardproxy.cli.explain import explain
from shardproxy.cli.hash_password import hash_password
from shardproxy.cli.init import init
from shardproxy.cli.lookup import app as lookup
from shardproxy.cli.migrate import migrate
from shardproxy.cli.rebalance import app as rebalance
from shardproxy.cli.redis import app as redis
from shardproxy.cli.status import status
from shardproxy.cli.topology import topology
from shardproxy.cli.xa import xa

_EPILOG = (
    "Exit status: 0 fine, 1 something is wrong or failed, 2 unusable command line or file, 3 no proxy answers, "
    "130 Ctrl-C. The file can also be named by SHARDPROXY_CONFIG."
)

app = typer.Typer(
    name="shardctl",
    help="Set up, check and look into shardproxy.\n\nStart with: shardctl init, edit the file, shardctl check.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for _command in (init, check, migrate, status, topology, explain, xa, hash_password):
    app.command(_command.__name__.replace("_", "-"))(_command)
app.add_typer(ddl)
app.add_typer(lookup)
app.add_typer(rebalance)
app.add_typer(redis)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"shardctl {shardproxy.__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options of shardctl itself; the help text is the app's."""


def main() -> None:
    """Entry point of the `shardctl` program."""
    app()
