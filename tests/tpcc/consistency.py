"""What must hold between the rows of TPC-C whenever no transaction is under way, after the specification's clause 3.3.

Beyond it: stock against order lines. A transaction of which one shard has a part and another has not breaks a sum.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

Row = Mapping[str, Any]
Tables = Mapping[str, Sequence[Row]]


def violations(tables: Tables) -> list[str]:
    """One line for each condition that does not hold at some key; [] when all do. Rows by column name."""
    return [
        *_money(tables),
        *_balances(tables),
        *_orders(tables),
        *_stock(tables),
    ]


def _money(tables: Tables) -> Iterable[str]:
    paid = _sums(tables["history"], ("h_w_id",), "h_amount")
    paid_in_district = _sums(tables["history"], ("h_w_id", "h_d_id"), "h_amount")
    districts = _sums(tables["district"], ("d_w_id",), "d_ytd")
    for row in tables["warehouse"]:
        key = (row["w_id"],)
        if not row["w_ytd"] == districts[key] == paid[key]:
            yield f"warehouse {key}: w_ytd {row['w_ytd']}, sum of d_ytd {districts[key]}, sum of h_amount {paid[key]}"
    for row in tables["district"]:
        place = (row["d_w_id"], row["d_id"])
        if row["d_ytd"] != paid_in_district[place]:
            yield f"district {place}: d_ytd {row['d_ytd']}, sum of h_amount {paid_in_district[place]}"


def _balances(tables: Tables) -> Iterable[str]:
    customers = {(o["o_w_id"], o["o_d_id"], o["o_id"]): o["o_c_id"] for o in tables["orders"]}
    delivered: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for line in tables["order_line"]:
        order = (line["ol_w_id"], line["ol_d_id"], line["ol_o_id"])
        if line["ol_delivery_d"] is not None and order in customers:
            delivered[(*order[:2], customers[order])] += line["ol_amount"]
    paid = _sums(tables["history"], ("h_c_w_id", "h_c_d_id", "h_c_id"), "h_amount")
    times = Counter((h["h_c_w_id"], h["h_c_d_id"], h["h_c_id"]) for h in tables["history"])
    for row in tables["customer"]:
        key = (row["c_w_id"], row["c_d_id"], row["c_id"])
        if row["c_balance"] != delivered[key] - paid[key]:
            yield f"customer {key}: c_balance {row['c_balance']}, delivered {delivered[key]} − paid {paid[key]}"
        if row["c_ytd_payment"] != paid[key] or row["c_payment_cnt"] != times[key]:
            yield f"customer {key}: c_ytd_payment {row['c_ytd_payment']} in {row['c_payment_cnt']}, paid {paid[key]}"


def _orders(tables: Tables) -> Iterable[str]:
    lines = Counter((r["ol_w_id"], r["ol_d_id"], r["ol_o_id"]) for r in tables["order_line"])
    open_lines = {
        (r["ol_w_id"], r["ol_d_id"], r["ol_o_id"]) for r in tables["order_line"] if r["ol_delivery_d"] is None
    }
    waiting = {(r["no_w_id"], r["no_d_id"], r["no_o_id"]) for r in tables["new_order"]}
    orders = {(r["o_w_id"], r["o_d_id"], r["o_id"]): r for r in tables["orders"]}
    for stray in sorted((set(lines) | waiting) - set(orders)):
        yield f"order {stray}: there are lines or a new_order, and no order"
    for key, row in orders.items():
        if row["o_ol_cnt"] != lines[key]:
            yield f"order {key}: o_ol_cnt {row['o_ol_cnt']}, {lines[key]} lines"
        undelivered = {row["o_carrier_id"] is None, key in waiting, key in open_lines}
        if len(undelivered) != 1:
            yield f"order {key}: carrier, new_order and lines do not agree on whether it is delivered"
    numbers: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for w, d, number in orders:
        numbers[w, d].append(number)
    for row in tables["district"]:
        place = (row["d_w_id"], row["d_id"])
        if sorted(numbers[place]) != list(range(1, row["d_next_o_id"])):
            yield f"district {place}: d_next_o_id {row['d_next_o_id']}, orders {sorted(numbers[place])}"


def _stock(tables: Tables) -> Iterable[str]:
    place = ("ol_supply_w_id", "ol_i_id")
    taken = _sums(tables["order_line"], place, "ol_quantity")
    times = Counter(tuple(r[c] for c in place) for r in tables["order_line"])
    far = Counter(tuple(r[c] for c in place) for r in tables["order_line"] if r["ol_supply_w_id"] != r["ol_w_id"])
    for row in tables["stock"]:
        key = (row["s_w_id"], row["s_i_id"])
        found = (row["s_ytd"], row["s_order_cnt"], row["s_remote_cnt"])
        if found != (taken[key], times[key], far[key]):
            yield f"stock {key}: {found}, by the order lines {(taken[key], times[key], far[key])}"


def _sums(rows: Iterable[Row], key: Sequence[str], value: str) -> defaultdict[tuple[Any, ...], Decimal]:
    sums: defaultdict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for row in rows:
        sums[tuple(row[c] for c in key)] += row[value]
    return sums
