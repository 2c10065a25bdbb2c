"""`shardctl redis`: the servers behind the Redis port."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    ends_with_status,
    note,
    read_config,
    stdout,
)
from shardproxy.config import Config
from shardproxy.config.units import Address, parse_address
from shardproxy.reshard.redis_nodes import NodeError
from shardproxy.reshard.redis_promotion import Promotion, refusal
from shardproxy.store.opening import open_store

app = typer.Typer(
    name="redis",
    help="Servers behind the Redis port.\n\nSee docs/operations.md.",
    no_args_is_help=True,
)


@app.callback()
def _group() -> None:
    """The text is the app's."""


@app.command()
@ends_with_status
def promote(
    node: Annotated[str, typer.Argument(help="The node's name in [redis.nodes].")],
    replica: Annotated[str, typer.Option("--replica", metavar="HOST:PORT", help="The replica that becomes the node.")],
    force: Annotated[
        bool, typer.Option("--force", help="Also when writes are lost by it, or when that cannot be known.")
    ] = False,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Make a replica the node: failover without Sentinel. Proxies follow at once.

    When the primary answers it takes no writes until the replica has all of them; then it becomes a replica: nothing is
    lost. When it does not answer, what it had not sent is lost. May be done again after it was interrupted.

    Exit status: 0 done; 1 refused, or a server failed; 2 unusable command line or file.

    Examples:
      shardctl redis promote node1 --replica 10.0.0.2:6379
    """
    settings = read_config(config)
    try:
        to = parse_address(replica)
    except ValueError as error:
        note(f"--replica {replica}: {error}")
        raise typer.Exit(Exit.UNUSABLE) from None
    why = refusal(settings, node)
    if why:
        note(why)
        raise typer.Exit(Exit.UNUSABLE)
    asyncio.run(_promote(settings, node, to, force))


async def _promote(config: Config, node: str, to: Address, force: bool) -> None:
    assert config.redis is not None
    store = await open_store(config)
    promotion = Promotion(
        config, store, node, to, force, lambda line: stdout().print(line, markup=False, soft_wrap=True)
    )
    try:
        await promotion.run()
    except NodeError:
        if promotion.changed:
            note("the promotion is half done: the same command again goes on with it")
        raise
    finally:
        await store.close()
