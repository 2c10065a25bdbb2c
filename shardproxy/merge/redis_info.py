"""INFO of several nodes as one: what counts is added, keys of databases are added, all else is the first node's."""

from __future__ import annotations

from collections.abc import Sequence

# Fields whose sum means something. Peaks are summed too: no more than that was in use at any one time.
_ADDED = frozenset(
    b"""connected_clients blocked_clients tracking_clients clients_in_timeout_table pubsub_clients watching_clients
    total_blocking_keys used_memory used_memory_rss used_memory_peak used_memory_overhead used_memory_startup
    used_memory_dataset used_memory_lua used_memory_vm_total used_memory_functions used_memory_scripts
    total_system_memory maxmemory allocator_allocated allocator_active allocator_resident mem_clients_normal
    mem_clients_slaves rdb_changes_since_last_save total_connections_received total_commands_processed
    instantaneous_ops_per_sec total_net_input_bytes total_net_output_bytes instantaneous_input_kbps
    instantaneous_output_kbps rejected_connections sync_full sync_partial_ok sync_partial_err expired_keys
    evicted_keys evicted_clients keyspace_hits keyspace_misses pubsub_channels pubsub_patterns pubsubshard_channels
    total_error_replies total_reads_processed total_writes_processed connected_slaves number_of_cached_scripts
    number_of_functions number_of_libraries used_cpu_sys used_cpu_user used_cpu_sys_children used_cpu_user_children
    expire_cycle_cpu_milliseconds total_eviction_exceeded_time acl_access_denied_auth acl_access_denied_cmd
    acl_access_denied_key acl_access_denied_channel dump_payload_sanitizations unexpected_error_replies""".split()
)
_HUMAN = b"_human"
_PAIRS = (b"db", b"cmdstat_", b"errorstat_")  # fields that are lists of name=number
# Numbers in such lists that are no counts: (name, its weight, by what it is divided)
_MEANS = {b"avg_ttl": b"expires", b"usec_per_call": b"calls"}


def join_info(replies: Sequence[bytes]) -> bytes:
    """Replies to INFO: bulk strings or, in RESP3, verbatim ones.

    Sections and lines are in the order of the first node; lines that only others have end their section.
    """
    texts = [_text(reply) for reply in replies]
    sections: dict[bytes, dict[bytes, list[bytes]]] = {}
    for text in texts:
        fields: dict[bytes, list[bytes]] = sections.setdefault(b"", {})
        for line in text.split(b"\r\n"):
            if line.startswith(b"# "):
                fields = sections.setdefault(line, {})
            elif line:
                name, _, value = line.partition(b":")
                fields.setdefault(name, []).append(value)
    blocks = []
    for section, fields in sections.items():
        if section or fields:
            lines = [section] if section else []
            lines += [b"%b:%b" % (name, _joined(name, values, fields)) for name, values in fields.items()]
            blocks.append(b"".join(line + b"\r\n" for line in lines))
    text = b"\r\n".join(blocks)
    if replies[0][:1] == b"=":
        text = b"txt:" + text
    return b"%b%d\r\n%b\r\n" % (replies[0][:1], len(text), text)


def _text(reply: bytes) -> bytes:
    text = reply[reply.index(b"\r\n") + 2 : -2]
    return text[4:] if reply[:1] == b"=" else text


def _joined(name: bytes, values: Sequence[bytes], fields: dict[bytes, list[bytes]]) -> bytes:
    if name in _ADDED:
        return _sum(values)
    if name.endswith(_HUMAN) and name.removesuffix(_HUMAN) in _ADDED and name.removesuffix(_HUMAN) in fields:
        return _human(int(_sum(fields[name.removesuffix(_HUMAN)])))
    if name.startswith(_PAIRS) and all(b"=" in value for value in values):
        return _join_pairs(values)
    return values[0]


def _sum(values: Sequence[bytes]) -> bytes:
    try:
        return b"%d" % sum(map(int, values))
    except ValueError:
        pass
    try:
        decimals = max(len(value.partition(b".")[2]) for value in values)
        return b"%.*f" % (decimals, sum(map(float, values)))
    except ValueError:
        return values[0]


def _join_pairs(values: Sequence[bytes]) -> bytes:
    rows = [dict(pair.partition(b"=")[::2] for pair in value.split(b",")) for value in values]
    names = list(rows[0])
    joined: dict[bytes, bytes] = {name: _sum([row.get(name, b"0") for row in rows]) for name in names}
    for name, weight in _MEANS.items():
        if name in joined and weight in joined:
            total = sum(float(row.get(name, b"0")) * float(row.get(weight, b"0")) for row in rows)
            mean = total / (float(joined[weight]) or 1.0)
            joined[name] = b"%.2f" % mean if b"." in rows[0][name] else b"%d" % mean
    return b",".join(b"%b=%b" % (name, joined[name]) for name in names)


def _human(number: int) -> bytes:
    """As Redis writes an amount of bytes."""
    size = float(number)
    for unit in (b"B", b"K", b"M", b"G", b"T"):
        if size < 1024 or unit == b"T":
            break
        size /= 1024
    return b"%dB" % number if unit == b"B" else b"%.2f%b" % (size, unit)
