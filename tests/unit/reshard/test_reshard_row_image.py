"""Of a row image only some columns, beside all of them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from shardproxy.reshard.columns import ColumnShape, TableShape
from shardproxy.reshard.row_image import TableMap, decoders, read_identity, read_image, steps

TYPES = (  # data type, code, metadata, bytes of a value
    ("bigint", 8, 0, st.binary(min_size=8, max_size=8)),
    ("mediumint", 9, 0, st.binary(min_size=3, max_size=3)),
    ("decimal", 246, 12 | 2 << 8, st.binary(min_size=6, max_size=6)),
    ("decimal", 246, 30 | 20 << 8, st.binary(min_size=14, max_size=14)),
    ("double", 5, 8, st.floats(width=64).map(lambda n: struct.pack("<d", n))),
    ("date", 10, 0, st.binary(min_size=3, max_size=3)),
    ("datetime", 18, 0, st.binary(min_size=5, max_size=5)),
    ("datetime", 18, 5, st.binary(min_size=8, max_size=8)),
    ("time", 19, 3, st.binary(min_size=5, max_size=5)),
    ("timestamp", 17, 6, st.binary(min_size=7, max_size=7)),
    ("year", 13, 0, st.binary(min_size=1, max_size=1)),
    ("varchar", 15, 40, st.binary(max_size=40).map(lambda s: bytes((len(s),)) + s)),
    ("varchar", 15, 400, st.binary(max_size=400).map(lambda s: struct.pack("<H", len(s)) + s)),
    ("char", 254, 254 | 40 << 8, st.binary(max_size=40).map(lambda s: bytes((len(s),)) + s)),
    ("bit", 16, 4 | 1 << 8, st.binary(min_size=2, max_size=2)),
    ("enum", 254, 247 | 1 << 8, st.binary(min_size=1, max_size=1)),
    ("mediumblob", 252, 3, st.binary(max_size=300).map(lambda s: struct.pack("<I", len(s))[:3] + s)),
    ("blob", 252, 2, st.binary(max_size=300).map(lambda s: struct.pack("<H", len(s)) + s)),
)


@given(st.data())
def test_some_columns_are_read_as_all_are(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=12))
    values = [data.draw(st.none() | kind[3]) for kind in chosen]
    wanted = data.draw(st.sets(st.sampled_from(range(len(chosen)))))
    columns = tuple(ColumnShape(f"c{i}", kind[0], kind[0]) for i, kind in enumerate(chosen))
    shape = TableShape("d", "t", columns, (0,), 0)
    seen = TableMap("d", "t", bytes(kind[1] for kind in chosen), tuple(kind[2] for kind in chosen))
    nulls = (len(chosen) + 7) // 8
    bitmap = sum(1 << i for i, value in enumerate(values) if value is None)
    before = data.draw(st.binary(max_size=3))
    image = before + bitmap.to_bytes(nulls, "little") + b"".join(filter(None, values)) + b"behind"
    decode = decoders(shape, seen)
    everything, present = range(len(chosen)), len(before)
    whole, end = read_image(image, present, everything, decode, nulls)
    some, end_of_some = read_identity(image, present, everything, steps(seen, decode, wanted), nulls)
    assert image[end:] == b"behind"
    assert end_of_some == end
    assert [some[place] for place in wanted] == [whole[place] for place in wanted]
