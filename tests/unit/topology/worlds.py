"""Hypothesis strategies for maps, moves and workflows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from shardproxy.topology.barrier import Acknowledgement, Identity, Standing
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.map_document import MapDocument, Move, Stream
from shardproxy.topology.map_form import HashForm, Interval, KeySet, NamedRange, RangeForm
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.stages import FINAL, MEANINGS, Stage, Writes
from shardproxy.topology.workflow import Happening, Plan, Workflow

SHARDS = ("a", "b", "c", "shard-ü")
names = st.sampled_from(SHARDS)
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def range_forms(draw: st.DrawFn) -> RangeForm:
    """Up to eight ranges, with gaps, from the lowest key to the highest."""
    inner = draw(st.sets(st.integers(INT_MIN, INT_MAX) | st.integers(-20, 20), max_size=7))
    cuts = sorted({INT_MIN, INT_MAX + 1, *inner})
    ranges = [NamedRange(a, b, draw(names)) for a, b in pairwise(cuts)]
    kept = [r for r in ranges if draw(st.booleans())] or ranges
    return RangeForm.of(kept)


@st.composite
def hash_forms(draw: st.DrawFn) -> HashForm:
    """Runs of buckets."""
    cuts = sorted({0, BUCKETS, *draw(st.sets(st.integers(1, BUCKETS - 1), max_size=12))})
    owners: list[str] = []
    for a, b in pairwise(cuts):
        owners += [draw(names)] * (b - a)
    return HashForm.of(owners)


forms = range_forms() | hash_forms()


@st.composite
def intervals(draw: st.DrawFn, low: int, high: int) -> tuple[Interval, ...]:
    edges = sorted(draw(st.sets(st.integers(low, high), min_size=2, max_size=8)))
    return tuple(Interval(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))


range_sets = intervals(INT_MIN, INT_MAX + 1).map(lambda found: KeySet(ranges=found))
bucket_sets = intervals(0, BUCKETS).map(lambda found: KeySet(buckets=found))
key_sets = range_sets | bucket_sets


@st.composite
def streams(draw: st.DrawFn, ranges: bool) -> tuple[Stream, ...]:
    """One to three, of keys that do not overlap."""
    low, high = (INT_MIN, INT_MAX + 1) if ranges else (0, BUCKETS)
    found = draw(intervals(low, high))
    count = min(draw(st.integers(1, 3)), len(found))
    shares = [found[n::count] for n in range(count)]
    kept = []
    for share in shares:
        source, target = draw(st.permutations(SHARDS))[:2]
        kept.append(Stream(source=source, target=target, keys=KeySet(**{"ranges" if ranges else "buckets": share})))
    return tuple(kept)


@st.composite
def moves(draw: st.DrawFn, ranges: bool, epoch: int) -> Move:
    stage = draw(st.sampled_from([stage for stage in Stage if stage not in FINAL]))
    free = MEANINGS[stage].writes is Writes.FREE
    return Move(
        id=draw(idents),
        stage=stage,
        streams=draw(streams(ranges)),
        fence=None if free else draw(st.integers(1, epoch)),
    )


idents = st.integers(1, 2**64 - 1)


@st.composite
def map_documents(draw: st.DrawFn) -> MapDocument:
    form = draw(forms)
    ranges = form.kind == "range"
    epoch = draw(st.integers(1, 2**62))
    return MapDocument(
        keyspace=draw(words),
        key_type="int" if ranges else draw(st.sampled_from(["int", "text", "binary"])),
        epoch=epoch,
        map=form,
        move=draw(st.none() | moves(ranges, epoch)),
        positions=draw(st.dictionaries(names, words)),
    )


identities = st.builds(
    Identity, id=words, since=finite, place=st.text(), account=st.text(), standing=st.sampled_from(Standing)
)
acknowledgements = st.builds(Acknowledgement, identity=words, epochs=st.dictionaries(words, st.integers(0, 2**62)))
plans = st.builds(Plan, goal=st.text(), streams=streams(True) | streams(False), other=st.none() | forms)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    happenings = st.builds(Happening, at=finite, stage=st.sampled_from(Stage), what=st.text())
    history = draw(st.lists(happenings, min_size=1, max_size=4).map(tuple))
    return Workflow(
        id=draw(idents),
        keyspace=draw(words),
        owner=draw(words),
        generation=draw(st.integers(1, 2**62)),
        version=draw(st.integers(1, 2**62)),
        stage=history[-1].stage,
        plan=draw(plans),
        paused=draw(st.booleans()),
        problem=draw(st.text()),
        figures=draw(st.dictionaries(words, st.integers() | finite | st.text(), max_size=4)),
        history=history,
    )
