"""Hypothesis strategies for maps, moves and workflows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st

from shardproxy.topology.barrier import Acknowledgement, Identity, Standing
from shardproxy.topology.keys import BUCKETS
from shardproxy.topology.map_document import Layout, MapDocument, Move, Stream, TableForm
from shardproxy.topology.map_form import HashForm, Interval, KeySet, NamedRange, RangeForm
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.phases import FINAL, MEANINGS, Phase, Writes
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


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    ranges = draw(st.none() | intervals(INT_MIN, INT_MAX + 1))
    buckets = draw(st.none() | intervals(0, BUCKETS)) if ranges else draw(intervals(0, BUCKETS))
    return KeySet(ranges=ranges, buckets=buckets)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    source, target = draw(st.permutations(SHARDS))[:2]
    return Stream(source=source, target=target, keys=draw(key_sets()))


table_forms = st.one_of(
    st.builds(TableForm, kind=st.just("sharded"), key=words),
    st.builds(TableForm, kind=st.just("single"), shard=names),
    st.just(TableForm(kind="reference")),
)
tables = st.dictionaries(words, table_forms, max_size=3)
layouts = st.builds(Layout, map=forms, tables=tables)
some_streams = st.lists(streams(), min_size=1, max_size=3).map(tuple)
table_names = st.lists(words, max_size=2).map(tuple)


@st.composite
def moves(draw: st.DrawFn, ident: str, epoch: int) -> Move:
    phase = draw(st.sampled_from([phase for phase in Phase if phase not in FINAL]))
    free = MEANINGS[phase].writes is Writes.FREE
    return Move(
        id=ident,
        phase=phase,
        streams=draw(some_streams),
        tables=draw(table_names),
        fence=None if free else draw(st.integers(1, epoch)),
        replaced_by=draw(st.none() | layouts),
    )


@st.composite
def map_documents(draw: st.DrawFn) -> MapDocument:
    form = draw(forms)
    epoch = draw(st.integers(1, 2**62))
    idents = draw(st.sets(words, max_size=2))
    return MapDocument(
        keyspace=draw(words),
        key_type="int" if form.kind == "range" else draw(st.sampled_from(["int", "text", "binary"])),
        epoch=epoch,
        map=form,
        tables=draw(tables),
        moves=tuple(draw(moves(ident, epoch)) for ident in sorted(idents)),
        positions=draw(st.dictionaries(names, words)),
    )


identities = st.builds(
    Identity, id=words, since=finite, place=st.text(), account=st.text(), standing=st.sampled_from(Standing)
)
acknowledgements = st.builds(Acknowledgement, identity=words, epochs=st.dictionaries(words, st.integers(0, 2**62)))
plans = st.builds(Plan, goal=st.text(), streams=some_streams, tables=table_names, replaced_by=st.none() | layouts)


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    happenings = st.builds(Happening, at=finite, phase=st.sampled_from(Phase), what=st.text())
    history = draw(st.lists(happenings, min_size=1, max_size=4).map(tuple))
    return Workflow(
        id=draw(words),
        keyspace=draw(words),
        owner=draw(words),
        generation=draw(st.integers(1, 2**62)),
        version=draw(st.integers(1, 2**62)),
        phase=history[-1].phase,
        plan=draw(plans),
        paused=draw(st.booleans()),
        problem=draw(st.text()),
        figures=draw(st.dictionaries(words, st.integers() | finite | st.text(), max_size=4)),
        history=history,
    )
