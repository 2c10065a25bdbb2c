"""admin.show.store: maps, acknowledgements and moves."""

from __future__ import annotations

from shardproxy.admin.show.store import store_json
from shardproxy.topology.map_document import MapDocument, Move, Stream, begin
from shardproxy.topology.map_form import KeySet, RangeForm
from shardproxy.topology.maps import INT_MAX, INT_MIN
from shardproxy.topology.stages import Stage


def test_store() -> None:
    whole = RangeForm.model_validate({"ranges": [[INT_MIN, 100, "a"], [100, INT_MAX + 1, "b"]]}, strict=False)
    document = MapDocument(keyspace="shop", key_type="int", epoch=1, map=whole)
    keys = KeySet.model_validate({"ranges": ((0, 50),)})
    moving = begin(document, Move(id=4, stage=Stage.PREPARED, streams=(Stream(source="a", target="b", keys=keys),)))
    shown = store_json("etcd", False, "no answer", "5f0c", {"shop": moving, "logs": document}, {"shop": 1})
    assert shown == {
        "kind": "etcd",
        "up": False,
        "problem": "no answer",
        "identity": "5f0c",
        "maps": [
            {"keyspace": "logs", "epoch": 1, "acknowledged": 0, "move": None},
            {
                "keyspace": "shop",
                "epoch": 2,
                "acknowledged": 1,
                "move": {"id": 4, "stage": "prepared", "streams": [{"source": "a", "target": "b"}]},
            },
        ],
    }
