"""The specs of all commands, made from the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from shardproxy.planner.redis import rows
from shardproxy.planner.redis.command import CommandSpec, Finder, Join, Way
from shardproxy.planner.redis.finders import counted, radius, sort, streams

_FINDERS: Mapping[str, Finder] = {
    "counted1": counted(1),
    "counted2": counted(2),
    "stored": counted(2, before=(1,)),
    "pairs": counted(1, step=2),
    "streams": streams,
    "sort": sort,
    "radius": radius,
}
_JOINS: Mapping[str, Join] = {join.value.replace(" ", "_"): join for join in Join}


def _spec(row: str, way: Way, refusal: str) -> CommandSpec:
    name, arity, access, *rest = row.split()
    places = (0, 0, 0)
    if rest[0] == "-":
        del rest[0]
    else:
        places = (int(rest[0]), int(rest[1]), int(rest[2]))
        del rest[:3]
    find: Finder | None = None
    join = Join.NONE
    for word in rest:
        if word in _FINDERS:
            find = _FINDERS[word]
        elif word in _JOINS:
            join = _JOINS[word]
        elif word not in ("blocks", "channels"):
            raise ValueError(f"{name}: {word} is no finder, join or mark")
    return CommandSpec(
        name=name.encode(),
        way=way,
        min_args=int(arity),
        write=access == "w",
        first=places[0],
        last=places[1],
        step=places[2],
        find=find,
        join=join,
        refusal=refusal,
        channels="channels" in rest,
        blocks="blocks" in rest,
    )


def _specs() -> Iterator[CommandSpec]:
    texts = [
        (rows.KEYED, Way.KEYED, ""),
        (rows.SPLIT, Way.SPLIT, ""),
        (rows.EVERY, Way.EVERY, ""),
        (rows.ANY, Way.ANY, ""),
        (rows.LOCAL, Way.LOCAL, ""),
        (rows.OWN, Way.OWN, ""),
        *((text, Way.REFUSED, refusal) for refusal, text in rows.REFUSED.items()),
    ]
    for text, way, refusal in texts:
        for line in text.splitlines():
            if line and not line.startswith("#"):
                yield _spec(line, way, refusal)


ALL: tuple[CommandSpec, ...] = tuple(_specs())
# By name in upper case; commands that are no subcommands in lower case too: most clients send one or the other.
SPECS: Mapping[bytes, CommandSpec] = {
    **{spec.name.lower(): spec for spec in ALL if b"|" not in spec.name},
    **{spec.name: spec for spec in ALL},
}
CONTAINERS = frozenset(spec.name.partition(b"|")[0] for spec in ALL if b"|" in spec.name)
# XREAD and XREADGROUP when they are asked to wait.
WAITERS: Mapping[bytes, CommandSpec] = {
    name: replace(SPECS[name], way=Way.OWN, blocks=True) for name in (b"XREAD", b"XREADGROUP")
}
