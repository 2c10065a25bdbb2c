"""`shardctl xa`: transactions over shards whose end a crash has prevented, and their decisions."""

from __future__ import annotations

import asyncio
import secrets
from typing import Annotated, Any

import typer

from shardproxy.admin.recovery import Decision, Ended, Found, Recovery
from shardproxy.backend.control import Credentials
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    print_json,
    read_config,
    stdout,
    table,
)
from shardproxy.topology.build import build_snapshot


@ends_with_status
def xa(
    config: ConfigOption = DEFAULT_CONFIG,
    recover: Annotated[bool, typer.Option("--recover", help="End every branch now, as its decision says.")] = False,
    seconds: Annotated[float, typer.Option("--timeout", help="Limit in seconds for each step.", min=1)] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Show prepared branches and decision rows on all primaries; with --recover end the branches.

    Asks the servers themselves; no proxy need run. Branches of commits that are under way show for a moment, too:
    --recover may then abort a commit that is slow, never half of it.

    Examples:
      shardctl xa              what is in doubt
      shardctl xa --recover    end it
    """
    settings = read_config(config)
    recovery = Recovery(build_snapshot(settings), Credentials.of(settings), seconds, secrets.token_hex(6), 1.0)
    found, decisions, ended, errors = asyncio.run(_look(recovery, recover))
    shown = [_branch(branch) for branch in found]
    results = [{**_branch(one.found), "committed": one.committed, "error": one.error} for one in ended]
    if as_json:
        rows = [{"shard": d.shard, "xid": d.xid, "outcome": d.outcome, "age_s": d.age} for d in decisions]
        print_json({"branches": shown, "decisions": rows, "ended": results, "errors": errors})
    else:
        _show(shown, decisions, results, errors)
    if errors or any(one.error for one in ended):
        raise typer.Exit(Exit.FAILED)


async def _look(recovery: Recovery, recover: bool) -> tuple[list[Found], list[Decision], list[Ended], dict[str, str]]:
    try:
        ended, errors = await recovery.round(patient=False) if recover else ([], {})
        found, unseen = await recovery.branches()
        decisions = [] if unseen else await recovery.decisions()
        return found, decisions, ended, {**errors, **unseen}
    finally:
        await recovery.close()


def _branch(found: Found) -> dict[str, Any]:
    ident = found.branch.transaction
    return {"shard": found.shard, "xid": ident.text, "decides": ident.shard, "coordinator": ident.coordinator}


def _show(
    found: list[dict[str, Any]], decisions: list[Decision], ended: list[dict[str, Any]], errors: dict[str, str]
) -> None:
    if ended:
        rows = table("shard", "xid", "ended by")
        for one in ended:
            rows.add_row(one["shard"], one["xid"], one["error"] or ("commit" if one["committed"] else "rollback"))
        stdout().print(rows)
    rows = table("shard", "branch in doubt", "deciding shard")
    for one in found:
        rows.add_row(one["shard"], one["xid"], one["decides"])
    stdout().print(rows if found else "no branch is in doubt")
    rows = table("deciding shard", "decision row", "outcome", "age")
    for decision in decisions:
        rows.add_row(decision.shard, decision.xid, decision.outcome, f"{decision.age:.0f} s")
    stdout().print(rows if decisions else "no decision rows")
    for shard, error in errors.items():
        stdout().print(f"{shard}: {error}")
