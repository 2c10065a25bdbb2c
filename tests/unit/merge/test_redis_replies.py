from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardproxy.errors import RemoteProtocolError
from shardproxy.merge.redis_info import join_info
from shardproxy.merge.redis_replies import elements, join_every, join_split
from shardproxy.planner.redis.spec import Join

# Whole replies of all kinds, some in others.
LEAVES = st.one_of(
    st.binary(max_size=6).map(lambda b: b"$%d\r\n%b\r\n" % (len(b), b)),
    st.integers().map(lambda n: b":%d\r\n" % n),
    st.sampled_from(
        [b"$-1\r\n", b"_\r\n", b"*-1\r\n", b"+OK\r\n", b"#t\r\n", b",1.5\r\n", b"(123\r\n", b"=7\r\ntxt:a\r\n\r\n"]
    ),
)
REPLIES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("*~"), st.lists(inner, max_size=3)).map(
            lambda t: t[0].encode() + b"%d\r\n" % len(t[1]) + b"".join(t[1])
        ),
        st.lists(st.tuples(inner, inner), max_size=3).map(
            lambda pairs: b"%%%d\r\n" % len(pairs) + b"".join(a + b for a, b in pairs)
        ),
        st.tuples(inner, inner, inner).map(lambda t: b"|1\r\n" + t[0] + t[1] + t[2]),
    ),
    max_leaves=8,
)


@given(st.lists(REPLIES, max_size=5))
def test_elements_of_arrays(values: list[bytes]) -> None:
    assert elements(b"*%d\r\n" % len(values) + b"".join(values)) == values


@pytest.mark.parametrize(
    "reply", [b":1\r\n", b"*2\r\n:1\r\n", b"*1\r\n$5\r\nab\r\n", b"*1\r\n:1\r\n:2\r\n", b"*x\r\n", b"*1"]
)
def test_what_is_no_array(reply: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        elements(reply)


@given(st.lists(REPLIES, min_size=1, max_size=8), st.data())
def test_values_come_back_in_the_order_of_the_keys(values: list[bytes], data: st.DataObject) -> None:
    owners = [data.draw(st.integers(0, 2)) for _ in values]
    keys = [[n for n, owner in enumerate(owners) if owner == node] for node in range(3) if node in owners]
    replies = [b"*%d\r\n" % len(some) + b"".join(values[n] for n in some) for some in keys]
    assert join_split(Join.LIST, replies, keys) == b"*%d\r\n" % len(values) + b"".join(values)


def test_the_error_of_the_earliest_key() -> None:
    assert join_split(Join.SUM, [b":1\r\n", b"-B\r\n", b"-A\r\n"], [[2], [1], [0, 3]]) == b"-A\r\n"
    assert join_split(Join.LIST, [b"*1\r\n_\r\n", b"!3\r\nERR\r\n"], [[0], [1]]) == b"!3\r\nERR\r\n"


def test_a_node_that_answers_for_too_few_keys() -> None:
    with pytest.raises(RemoteProtocolError, match="1 values for 2 keys"):
        join_split(Join.LIST, [b"*1\r\n_\r\n"], [[0, 1]])


@pytest.mark.parametrize(
    ("join", "replies", "joined"),
    [
        (Join.OK, [b"+OK\r\n", b"+OK\r\n"], b"+OK\r\n"),
        (Join.OK, [b"+OK\r\n", b"-ERR no\r\n"], b"-ERR no\r\n"),
        (Join.SAME, [b"$1\r\na\r\n"] * 2, b"$1\r\na\r\n"),
        (Join.SUM, [b":1\r\n", b":-3\r\n"], b":-2\r\n"),
        (Join.MIN, [b":1\r\n", b":3\r\n"], b":1\r\n"),
        (Join.MAX, [b":1\r\n", b":3\r\n"], b":3\r\n"),
        (Join.CONCAT, [b"*1\r\n:1\r\n", b"*0\r\n", b"*2\r\n:1\r\n:2\r\n"], b"*3\r\n:1\r\n:1\r\n:2\r\n"),
        (Join.UNION, [b"*1\r\n:1\r\n", b"*0\r\n", b"*2\r\n:1\r\n:2\r\n"], b"*2\r\n:1\r\n:2\r\n"),
        (Join.MIN_LIST, [b"*2\r\n:1\r\n:0\r\n", b"*2\r\n:1\r\n:1\r\n"], b"*2\r\n:1\r\n:0\r\n"),
        (Join.SUM_PAIRS, [b"*2\r\n$1\r\na\r\n:2\r\n", b"*2\r\n$1\r\na\r\n:1\r\n"], b"*2\r\n$1\r\na\r\n:3\r\n"),
        (Join.FOUND, [b"$-1\r\n", b"$1\r\na\r\n"], b"$1\r\na\r\n"),
        (Join.FOUND, [b"_\r\n", b"_\r\n"], b"_\r\n"),
        (Join.STOPPED, [b"-NOTBUSY a\r\n", b"+OK\r\n"], b"+OK\r\n"),
        (Join.STOPPED, [b"-NOTBUSY a\r\n", b"-NOTBUSY b\r\n"], b"-NOTBUSY a\r\n"),
    ],
)
def test_joins(join: Join, replies: list[bytes], joined: bytes) -> None:
    assert join_every(join, replies) == joined


def test_what_cannot_be_joined() -> None:
    with pytest.raises(RemoteProtocolError, match="a number was due"):
        join_every(Join.SUM, [b"+OK\r\n"])
    with pytest.raises(RemoteProtocolError, match="different length"):
        join_every(Join.MIN_LIST, [b"*1\r\n:1\r\n", b"*0\r\n"])
    with pytest.raises(ValueError, match="not joined"):
        join_every(Join.CURSOR, [b":1\r\n"])


def test_the_newest_slow_commands() -> None:
    def reply(*times: int) -> bytes:
        entries = [b"*3\r\n:%d\r\n:%d\r\n*1\r\n$4\r\nPING\r\n" % (n, t) for n, t in enumerate(times)]
        return b"*%d\r\n" % len(entries) + b"".join(entries)

    replies = [reply(9, 4), reply(7, 5)]
    for args, times in [("10", [9, 7, 5, 4]), ("2", [9, 7]), ("-1", [9, 7, 5, 4]), ("0", [])]:
        joined = join_every(Join.SLOWLOG, replies, [b"SLOWLOG", b"GET", args.encode()])
        assert [int(elements(entry)[1][1:-2]) for entry in elements(joined)] == times
    assert len(elements(join_every(Join.SLOWLOG, [reply(*range(9)), reply(*range(9))], [b"SLOWLOG", b"GET"]))) == 10


def test_info_is_summed() -> None:
    def bulk(text: str, resp3: bool) -> bytes:
        data = text.replace("\n", "\r\n").encode()
        return b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data) if resp3 else b"$%d\r\n%b\r\n" % (len(data), data)

    one = (
        "# Server\nredis_version:7.0.15\n\n# Memory\nused_memory:2000\nused_memory_human:1.95K\nused_cpu_sys:1.25\n\n"
        "# Commandstats\ncmdstat_get:calls=1,usec=10,usec_per_call=10.00\n\n"
        "# Keyspace\ndb0:keys=1,expires=1,avg_ttl=100\n"
    )
    two = (
        "# Server\nredis_version:7.0.14\n\n# Memory\nused_memory:200\nused_memory_human:200B\nused_cpu_sys:1.5\n\n"
        "# Commandstats\ncmdstat_get:calls=3,usec=10,usec_per_call=3.33\n"
        "cmdstat_set:calls=3,usec=9,usec_per_call=3.00\n\n"
        "# Keyspace\ndb0:keys=5,expires=3,avg_ttl=500\n"
    )
    whole = (
        "# Server\nredis_version:7.0.15\n\n# Memory\nused_memory:2200\nused_memory_human:2.15K\nused_cpu_sys:2.75\n\n"
        "# Commandstats\ncmdstat_get:calls=4,usec=20,usec_per_call=5.00\n"
        "cmdstat_set:calls=3,usec=9,usec_per_call=3.00\n\n"
        "# Keyspace\ndb0:keys=6,expires=4,avg_ttl=400\n"
    )
    for resp3 in (False, True):
        assert join_info([bulk(one, resp3), bulk(two, resp3)]) == bulk(whole, resp3)
        assert join_info([bulk(one, resp3)]) == bulk(one, resp3)
