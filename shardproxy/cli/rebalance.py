"""`shardctl rebalance`: keys move between shards while the application goes on."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer
from rich.text import Text

from shardproxy.admin.check.findings import Severity
from shardproxy.admin.rebalance.measure import Size
from shardproxy.admin.rebalance.plan import USUAL_RATE, Plan, make_plan, share_of_keys
from shardproxy.cli import rebalance_goals as words
from shardproxy.cli.rebalance_load import load_json, show_load
from shardproxy.cli.terminal import (
    DEFAULT_CONFIG,
    ConfigOption,
    Exit,
    JsonOption,
    ends_with_status,
    note,
    print_json,
    read_config,
    stdout,
    table,
)
from shardproxy.errors import GoalError
from shardproxy.reshard.leading import stored_loads_of, stored_maps_of
from shardproxy.topology.goals import EmptyShard, Goal, Level
from shardproxy.topology.maps import INT_MAX, INT_MIN, RangeMap
from shardproxy.topology.moving import MovingKeys

app = typer.Typer(
    name="rebalance",
    help="Move keys between shards while the application goes on.\n\n"
    "Start with a plan: it says what would move and what stands in the way, and changes nothing.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
KeyspaceArgument = Annotated[str, typer.Argument(help="The keyspace, as the file names it.", metavar="KEYSPACE")]


def _goal(option: str, metavar: str, text: str) -> Any:
    return typer.Option(option, metavar=metavar, help=text, rich_help_panel="Goals")


AddShards = Annotated[
    list[str], _goal("--add-shard", "NAME=HOST:PORT[,REPLICA…]", "A new shard. Without addresses: one of the file.")
]
RemoveShards = Annotated[
    list[str], _goal("--remove-shard", "NAME", "Give all its keys away; then the keyspace forgets it.")
]
Evacuate = Annotated[list[str], _goal("--evacuate", "NAME", "Give all its keys away; the keyspace goes on knowing it.")]
Weights = Annotated[
    list[str], _goal("--weights", "A=2,B=1", "New weights of shards on the ring, or for --even and --by-load.")
]
MoveBucket = Annotated[list[str], _goal("--move-bucket", "B[-C]=SHARD", "Buckets of a hash map to a shard.")]
MoveRange = Annotated[
    list[str], _goal("--move-range", "LO:HI=SHARD", "Keys from LO up to, without, HI. `min` and `max` are the ends.")
]
SplitRange = Annotated[
    list[str], _goal("--split-range", "AT[=SHARD]", "Cut a range; the upper part goes to the shard, if one is named.")
]
MergeRanges = Annotated[
    list[str],
    _goal("--merge-ranges", "AT[=SHARD]|all", "Make the two ranges that meet at AT one; all: where none move."),
]
Shift = Annotated[list[str], _goal("--shift", "OLD:NEW", "Shift the boundary between two ranges.")]
Even = Annotated[bool, _goal("--even", "", "Give each shard its share of the bytes, by weight.")]
ByLoad = Annotated[
    bool, _goal("--by-load", "", "Give each shard its share, by weight, of the statements that proxies measured.")
]
ToMap = Annotated[
    str,
    _goal("--map", "hash|range:LO:HI=SHARD,…", "A map of the other kind for the whole keyspace; `hash` by --weights."),
]
ShardTable = Annotated[
    str, _goal("--shard-table", "TABLE=COLUMN", "Rows of a single table to where the map says, by this column.")
]
ChangeKey = Annotated[
    str, _goal("--change-key", "TABLE=COLUMN", "Rows of a sharded table to where the map says, by another column.")
]
Weight = Annotated[int, typer.Option("--weight", help="Weight of the shards that are added.", rich_help_panel="Goals")]
Throttle = Annotated[str, typer.Option("--throttle", metavar="ROWS/S", help="Most rows per second, all streams.")]
MeasureTime = Annotated[
    float, typer.Option("--measure-time", min=0, help="Seconds of counting on each shard; 0: estimates only.")
]


@app.callback()
def _group() -> None:
    """The text is the app's."""


@app.command()
@ends_with_status
def plan(
    keyspace: KeyspaceArgument,
    add_shard: AddShards = [],  # noqa: B006 — typer wants lists
    remove_shard: RemoveShards = [],  # noqa: B006
    evacuate: Evacuate = [],  # noqa: B006
    weights: Weights = [],  # noqa: B006
    move_bucket: MoveBucket = [],  # noqa: B006
    move_range: MoveRange = [],  # noqa: B006
    split_range: SplitRange = [],  # noqa: B006
    merge_ranges: MergeRanges = [],  # noqa: B006
    shift: Shift = [],  # noqa: B006
    even: Even = False,
    to_map: ToMap = "",
    by_load: ByLoad = False,
    shard_table: ShardTable = "",
    change_key: ChangeKey = "",
    weight: Weight = 1,
    throttle: Throttle = "",
    measure_time: MeasureTime = 10.0,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Show what would move, how long it takes, and every finding that stands in the way.

    Give one goal, or several that go together. Nothing is changed anywhere: the servers are asked, and rows counted in
    indexes for --measure-time at most; what was not counted in time is estimated, and marked by ~.

    Exit status: 0 it can be run; 1 findings refuse it, or a server failed; 2 the command line or goal makes no sense.

    Examples:
      shardctl rebalance plan main --add-shard d=10.0.0.9:3306,10.0.0.10:3306
      shardctl rebalance plan main --remove-shard b
      shardctl rebalance plan main --weights a=2,b=1
      shardctl rebalance plan orders --split-range 5000000=c
      shardctl rebalance plan orders --add-shard d=10.0.0.9:3306 --even
      shardctl rebalance plan orders --by-load
      shardctl rebalance plan orders --move-range 5000000:max=c --throttle 20k/s
      shardctl rebalance plan orders --map hash --weights a=2,b=1
      shardctl rebalance plan main --map range:min:5000000=a,5000000:max=b
      shardctl rebalance plan main --shard-table invoices=uid
      shardctl rebalance plan main --change-key orders=tenant_id
      shardctl rebalance plan main --move-bucket 17=b --json | jq .streams
    """
    try:
        goals = goals_of(
            add_shard, remove_shard, evacuate, weights, move_bucket, move_range, split_range, merge_ranges, shift, even,
            by_load, to_map, shard_table, change_key, weight,
        )  # fmt: skip
        rate = words.rows_a_second(throttle) if throttle else None
        settings = read_config(config)

        async def make() -> Plan:
            maps, loads = await stored_maps_of(settings), await stored_loads_of(settings, keyspace)
            return await make_plan(settings, keyspace, goals, measure_time, rate, maps, loads)

        found = asyncio.run(make())
    except GoalError as error:
        note(str(error))
        raise typer.Exit(Exit.UNUSABLE) from None
    if as_json:
        print_json(to_json(found))
    else:
        show(found)
    if found.refused:
        raise typer.Exit(Exit.FAILED)


def goals_of(
    add_shard: list[str], remove_shard: list[str], evacuate: list[str], weights: list[str], move_bucket: list[str],
    move_range: list[str], split_range: list[str], merge_ranges: list[str], shift: list[str], even: bool, by_load: bool,
    to_map: str, shard_table: str, change_key: str, weight: int,
) -> list[Goal]:  # fmt: skip
    """The goals that the options say. Raises GoalError."""
    return [
        *(words.add_shard(word, weight) for word in add_shard),
        *(EmptyShard(name) for name in remove_shard),
        *(EmptyShard(name, stays=True) for name in evacuate),
        *words.each(weights, words.weights),
        *words.each(move_bucket, words.move_bucket),
        *words.each(split_range, words.split_range),
        *words.each(merge_ranges, words.merge_ranges),
        *words.each(shift, words.shift),
        *words.each(move_range, words.move_range),
        *([Level()] if even else []),
        *([Level("queries")] if by_load else []),
        *([words.to_map(to_map)] if to_map else []),
        *([words.shard_table(shard_table)] if shard_table else []),
        *([words.change_key(change_key)] if change_key else []),
    ]


def to_json(found: Plan) -> dict[str, Any]:
    """A plan as `--json` prints it. Integer keys beyond 2^53 are there as they are."""
    change = found.change
    names = [shard.name for shard in change.shards]
    return {
        "keyspace": change.keyspace,
        "refused": found.refused,
        "seconds": round(found.seconds, 1),
        "throttle": found.throttle,
        "share": round(found.share(sum((flow.size for flow in found.flows), Size())), 6),
        "share_of_buckets": share_of_keys(change),
        "levelled_by_estimates": not found.measured,
        "load": None if found.load is None else load_json(found, found.load),
        "table": None if change.table is None else {"name": change.table.name, "key": change.table.key},
        "weights": dict(change.weights),
        "shards": {
            "added": [names[shard] for shard in change.added],
            "after": [names[shard] for shard in change.members],
        },
        "streams": [
            {
                "source": names[flow.stream.source],
                "target": names[flow.stream.target],
                "rows": flow.size.rows,
                "bytes": flow.size.bytes,
                "exact": flow.size.exact,
                "share": round(found.share(flow.size), 6),
                "keys": _keys_json(flow.stream.keys),
                "tables": {
                    name: {"rows": size.rows, "bytes": size.bytes, "exact": size.exact}
                    for name, size in sorted(flow.tables.items())
                },
            }
            for flow in found.flows
        ],
        "ranges": [{"from": _edge(r.start), "to": _edge(r.end), "shard": names[r.shard]} for r in change.after.ranges]
        if isinstance(change.after, RangeMap)
        else None,
        "findings": [
            {"severity": f.severity.value, "where": f.where, "what": f.what, "fix": f.fix} for f in found.findings
        ],
    }


def _keys_json(keys: MovingKeys) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if keys.buckets is not None:
        found["buckets"] = sorted(keys.buckets)
    if keys.intervals is not None:
        found["intervals"] = [[_edge(start), _edge(end)] for start, end in keys.intervals]
    return found


def _edge(key: int) -> int | str:
    return "min" if key == INT_MIN else "max" if key == INT_MAX + 1 else key


def show(found: Plan) -> None:
    """A plan for people."""
    out, change = stdout(), found.change
    names = [shard.name for shard in change.shards]
    whole = sum((flow.size for flow in found.flows), Size())
    if found.flows:
        rows = table("from", "to", "keys", "rows", "bytes", "share of data")
        for flow in found.flows:
            rows.add_row(
                Text(names[flow.stream.source]),
                Text(names[flow.stream.target]),
                Text(_keys_text(flow.stream.keys)),
                *_figures(found, flow.size),
            )
        if len(found.flows) > 1:
            rows.add_row(Text("together", "bold"), "", "", *_figures(found, whole))
        out.print(rows)
        speed = f"at most {found.throttle:,} rows/s" if found.throttle else f"at {USUAL_RATE:,} rows/s"
        out.print(f"about {_duration(found.seconds)} to copy ({speed}, and as long as the changes meanwhile take)")
    elif change.after != change.before or change.left:
        out.print("no row moves: only the map changes")
    else:
        out.print("nothing moves: it is so already")
    if change.table is not None:
        out.print(Text(f'table {change.table.name} afterwards: {{ key = "{change.table.key}" }}'))
    if change.left:
        out.print(Text(f"no part of the keyspace afterwards: {', '.join(names[shard] for shard in change.left)}"))
    for r in change.opened:
        out.print(Text(f"keys {_edge(r.start)} to {_edge(r.end)} had no shard and come to {names[r.shard]}"))
    if found.load is not None:
        show_load(found, found.load)
    if not found.measured:
        out.print(Text("levelled by estimates: not all was counted in time (--measure-time)", "yellow"))
    if isinstance(change.after, RangeMap) and change.after != change.before:
        after = table("from", "to (not included)", "shard", title="ranges afterwards")
        for r in change.after.ranges:
            after.add_row(str(_edge(r.start)), str(_edge(r.end)), Text(names[r.shard]))
        out.print()
        out.print(after)
    elif change.after != change.before:
        ring = ", ".join(f"{name} = {weight}" for name, weight in change.weights.items())
        share = share_of_keys(change)
        what = "the map becomes a hash map" if share is None else f"{share:.1%} of the buckets change hands"
        out.print(Text(f"{what}; ring afterwards: {{ {ring} }}"))
    _findings(found)


def _figures(found: Plan, size: Size) -> tuple[str, str, str]:
    about = "" if size.exact else "~"
    return f"{about}{size.rows:,}", f"~{_bytes(size.bytes)}", f"{about}{found.share(size):.1%}"


def _findings(found: Plan) -> None:
    out = stdout()
    if found.findings:
        out.print()
    for finding in found.findings:
        style = "bold red" if finding.severity is Severity.ERROR else "bold yellow"
        out.print(Text.assemble((finding.severity.value, style), " ", (finding.where, "bold"), f": {finding.what}"))
        out.print(Text(f"  fix: {finding.fix}", "dim"))
    errors = sum(finding.severity is Severity.ERROR for finding in found.findings)
    if errors:
        out.print(Text(f"{errors} {'finding refuses' if errors == 1 else 'findings refuse'} the move", "bold red"))


def _keys_text(keys: MovingKeys) -> str:
    buckets = "" if keys.buckets is None else f"{len(keys.buckets)} buckets"
    if keys.intervals is None:
        return buckets
    intervals = [f"{_edge(start)}:{_edge(end)}" for start, end in keys.intervals]
    shown = ", ".join(intervals[:3]) + (f" and {len(intervals) - 3} more" if len(intervals) > 3 else "")
    return f"{buckets} of {shown}" if buckets else shown


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "a second"
    parts = [(int(seconds // 86400), "d"), (int(seconds % 86400 // 3600), "h"), (int(seconds % 3600 // 60), "min")]
    shown = [f"{n} {unit}" for n, unit in parts if n]
    if seconds < 600:
        shown.append(f"{seconds % 60:.0f} s")
    return " ".join(shown[:2])
