"""Evening out what shards have, by measured sizes, with the least movement.

Who has more than a share gives, who has less takes, and nobody does both: what moves is the surplus and no more. Sizes
are bytes, or queries, or whatever was counted; shares are relative.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shardproxy.topology.maps import KeyRange, RangeMap

SLACK = 0.02  # of an average share: a shard that is off by so little stays as it is


class Piece(NamedTuple):
    """How much there is in the keys, or the buckets, `[start, end)`. Taken as spread evenly over them."""

    start: int
    end: int
    size: float


def level_buckets(owners: Sequence[int], sizes: Sequence[float], shares: Mapping[int, float]) -> tuple[int, ...]:
    """New owner of each bucket. sizes: of each bucket; shares: shard → share; an owner without a share gives all.

    A shard ends within the slack, or as near as whole buckets allow.
    """
    new = list(owners)
    surplus = _surplus({**dict.fromkeys(owners, 0.0), **_sums(owners, sizes)}, shares)
    slack = _slack(sizes, shares)
    givers = {shard for shard, over in surplus.items() if over > slack or (over > 0 and not shares.get(shard))}
    takers = {shard for shard, over in surplus.items() if over < 0 and shares.get(shard)}
    held: dict[int, list[tuple[float, int]]] = {shard: [] for shard in givers}
    for bucket, owner in enumerate(owners):
        if owner in givers:
            insort(held[owner], (sizes[bucket], bucket))
    while givers and takers:
        giver = max(givers, key=lambda shard: (surplus[shard], -shard))
        taker = min(takers, key=lambda shard: (surplus[shard], shard))
        if shares.get(giver) and surplus[giver] <= slack and -surplus[taker] <= slack:
            break
        at = _fitting(held[giver], surplus[giver], -surplus[taker])
        if at is None:
            givers.discard(giver)
            continue
        size, bucket = held[giver].pop(at)
        new[bucket] = taker
        surplus[giver] -= size
        surplus[taker] += size
        if surplus[giver] <= 0:
            givers.discard(giver)
        if surplus[taker] >= 0:
            takers.discard(taker)
    stayers = {shard for shard, share in shares.items() if share}
    rest = (stayers - {old for old, now in zip(owners, new, strict=True) if old != now}) or stayers
    counts = {shard: float(new.count(shard)) for shard in rest}
    for bucket, owner in enumerate(new):
        if owner not in stayers:  # an empty one of a shard that leaves, or one that nobody has room for
            least = surplus if sizes[bucket] else {shard: counts[shard] / shares[shard] for shard in rest}
            new[bucket] = min(rest, key=lambda shard: (least[shard], shard))
            surplus[new[bucket]] += sizes[bucket]
            counts[new[bucket]] += 1
    return tuple(new)


def level_ranges(
    old: RangeMap, pieces: Sequence[Piece], shares: Mapping[int, float], costs: Sequence[Piece] | None = None
) -> RangeMap:
    """The new map: ranges are cut where the sizes say. pieces: disjoint; keys without one count as empty.

    What a shard takes lies next to a range of its own where that can be; else a new range begins. The end of the last
    range is given away last: there the new keys arrive. costs: what it costs to move keys, where that is not their
    size: disjoint pieces; then that edge of a range is given away which costs least, whichever it is.
    """
    cost = None if costs is None else _Costs(costs)
    segments = _segments(old, pieces)
    surplus = _surplus(
        {**dict.fromkeys(old.all_shards, 0.0), **_sums([s.shard for s in segments], [s.size for s in segments])}, shares
    )
    slack = _slack([s.size for s in segments], shares)
    givers = {shard for shard, over in surplus.items() if over > slack or (over > 0 and not shares.get(shard))}
    takers = {shard for shard, over in surplus.items() if over < 0 and shares.get(shard)}
    while givers and takers:
        giver = max(givers, key=lambda shard: (surplus[shard], -shard))
        taker = min(takers, key=lambda shard: (surplus[shard], shard))
        if shares.get(giver) and surplus[giver] <= slack and -surplus[taker] <= slack:
            break
        given = _give(segments, giver, taker, min(surplus[giver], -surplus[taker]), cost)
        surplus[giver] -= given
        surplus[taker] += given
        if not given or surplus[giver] <= slack / 1000:
            givers.discard(giver)
        if surplus[taker] >= -slack / 1000:
            takers.discard(taker)
    stayers = {shard for shard, share in shares.items() if share}
    rest = (stayers - {old.lookup(s.start) for s in segments if old.lookup(s.start) != s.shard}) or stayers
    for i, segment in enumerate(segments):  # what is left of a shard that leaves: empty, or a few keys
        if segment.shard not in stayers:
            near = _touching(segments, i, stayers) & rest
            segment.shard = min(near or rest, key=lambda shard: (surplus[shard], shard))
            surplus[segment.shard] += segment.size
    return redrawn(old, [KeyRange(s.start, s.end, s.shard) for s in segments])


def redrawn(old: RangeMap, owned: Sequence[KeyRange]) -> RangeMap:
    """A map of these ranges. Neighbours on one shard are one range, except where the old map has a boundary between two
    ranges that both stay."""
    edges = {
        (a.end, a.shard) for a, b in zip(old.ranges, old.ranges[1:], strict=False)
        if a.end == b.start and a.shard == b.shard
    }  # fmt: skip
    ranges: list[KeyRange] = []
    for part in sorted(owned):
        last = ranges[-1] if ranges else None
        if last and last.end == part.start and last.shard == part.shard and (part.start, part.shard) not in edges:
            ranges[-1] = KeyRange(last.start, part.end, part.shard)
        else:
            ranges.append(part)
    return RangeMap(ranges)


def _sums(owners: Sequence[int], sizes: Sequence[float]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for owner, size in zip(owners, sizes, strict=True):
        sums[owner] = sums.get(owner, 0.0) + size
    return sums


def _surplus(has: Mapping[int, float], shares: Mapping[int, float]) -> dict[int, float]:
    """Shard → what it has beyond its share; negative: what it lacks."""
    total, whole = sum(has.values()), sum(shares.values())
    if not whole:
        raise ValueError("somebody must have a share")
    return {shard: has.get(shard, 0.0) - total * shares.get(shard, 0.0) / whole for shard in {**has, **shares}}


def _slack(sizes: Sequence[float], shares: Mapping[int, float]) -> float:
    return SLACK * sum(sizes) / sum(1 for share in shares.values() if share)


def _fitting(held: list[tuple[float, int]], over: float, lacks: float) -> int | None:
    """Place of the largest bucket that is not more than the one has over and the other lacks; else of the smallest, if
    moving it brings the two nearer to their shares. Empty buckets do not move."""
    at = bisect_right(held, (min(over, lacks), 1 << 30)) - 1
    if at >= 0 and held[at][0] > 0:
        return at
    if at + 1 < len(held):
        size = held[at + 1][0]
        if abs(over - size) + abs(lacks - size) < over + lacks:
            return at + 1
    return None


@dataclass(slots=True)
class _Segment:
    start: int
    end: int
    size: float
    shard: int


def _segments(old: RangeMap, pieces: Sequence[Piece]) -> list[_Segment]:
    """The pieces cut at the map's boundaries, and the rest of the ranges as empty ones, in order."""
    out: list[_Segment] = []
    ordered = sorted(pieces)
    for r in old.ranges:
        at = r.start
        for piece in ordered:
            start, end = max(piece.start, r.start), min(piece.end, r.end)
            if start >= end:
                continue
            if at < start:
                out.append(_Segment(at, start, 0.0, r.shard))
            out.append(_Segment(start, end, piece.size * (end - start) / (piece.end - piece.start), r.shard))
            at = end
        if at < r.end:
            out.append(_Segment(at, r.end, 0.0, r.shard))
    return out


class _Costs:
    """What it costs to move an interval of keys."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = sorted(pieces)
        self._starts = [piece.start for piece in self._pieces]
        self._before = [0.0]
        for piece in self._pieces:
            self._before.append(self._before[-1] + piece.size)

    def between(self, start: int, end: int) -> float:
        return self._below(end) - self._below(start)

    def _below(self, key: int) -> float:
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return 0.0
        piece = self._pieces[at]
        part = min(1.0, (key - piece.start) / (piece.end - piece.start))
        return self._before[at] + piece.size * part


def _bill(segments: Sequence[_Segment], amount: float, costs: _Costs) -> tuple[float, float]:
    """How much of an amount can be given from an edge, in tenths of it, and minus what that costs. segments: of a run,
    the edge's first."""
    given = spent = 0.0
    for segment in segments:
        if given >= amount:
            break
        if given + segment.size > amount:
            part = (amount - given) / segment.size
            width = segment.end - segment.start
            if round(width * part):
                part = part if width > 1 else 1.0
                given += segment.size * part
                spent += costs.between(segment.start, segment.end) * part
            break
        given += segment.size
        spent += costs.between(segment.start, segment.end)
    return min(1.0, round(given / amount, 1)), -spent


def _give(segments: list[_Segment], giver: int, taker: int, amount: float, costs: _Costs | None) -> float:
    """Give keys of about this size from one edge of one range; how much was given."""
    found: tuple[tuple[float, ...], int, int, bool] | None = None
    for first, last in _runs(segments, giver):
        below = segments[first - 1] if first and segments[first - 1].end == segments[first].start else None
        above = (
            segments[last + 1]
            if last + 1 < len(segments) and segments[last + 1].start == segments[last].end
            else None
        )  # fmt: skip
        size = sum(s.size for s in segments[first : last + 1])
        for upwards, neighbour in ((True, below), (False, above)):
            of_edge = segments[first : last + 1] if upwards else segments[last : first - 1 if first else None : -1]
            score: tuple[float, ...] = (
                *(_bill(of_edge, amount, costs) if costs else ()),
                size > 0,
                neighbour is not None and neighbour.shard == taker,
                upwards or last + 1 < len(segments),
                size >= amount,
                min(size, amount),
                upwards,
            )
            if found is None or score > found[0]:
                found = (score, first, last, upwards)
    if found is None:
        return 0.0
    _, first, last, upwards = found
    before = [segment.shard for segment in segments]
    given = 0.0
    order = range(first, last + 1) if upwards else range(last, first - 1, -1)
    for i in order:
        segment = segments[i]
        if given >= amount:
            break
        if given + segment.size <= amount:
            segment.shard = taker
            given += segment.size
            continue
        width = segment.end - segment.start
        keys = round(width * ((amount - given) / segment.size))
        if keys == width:
            segment.shard = taker
            given += segment.size
        elif keys:
            cut = segment.start + keys if upwards else segment.end - keys
            part = segment.size * keys / width
            rest = segment.size - part
            sizes, owners = ((part, rest), (taker, giver)) if upwards else ((rest, part), (giver, taker))
            segments[i : i + 1] = [
                _Segment(segment.start, cut, sizes[0], owners[0]),
                _Segment(cut, segment.end, sizes[1], owners[1]),
            ]
            given += part
        break
    if not given:  # then empty keys stay too
        for segment, shard in zip(segments, before, strict=True):
            segment.shard = shard
    return given


def _touching(segments: Sequence[_Segment], i: int, stayers: Collection[int]) -> set[int]:
    """The shards that stay and whose keys touch a segment, or the segments around it that are to be given away too."""
    found = set()
    for step in (-1, 1):
        at = i
        while 0 <= at + step < len(segments):
            lower, upper = sorted((segments[at], segments[at + step]), key=lambda s: s.start)
            if lower.end != upper.start:
                break
            at += step
            if segments[at].shard in stayers:
                found.add(segments[at].shard)
                break
    return found


def _runs(segments: Sequence[_Segment], shard: int) -> list[tuple[int, int]]:
    """First and last place of each run of touching segments of a shard."""
    runs: list[tuple[int, int]] = []
    for i, segment in enumerate(segments):
        if segment.shard != shard:
            continue
        if runs and runs[-1][1] == i - 1 and segments[i - 1].end == segment.start:
            runs[-1] = (runs[-1][0], i)
        else:
            runs.append((i, i))
    return runs
