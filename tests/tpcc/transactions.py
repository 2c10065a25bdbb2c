"""The five transactions of TPC-C, our own text: statements on a session, one after the other, as applications do."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from tests.tpcc.inputs import Delivery, NewOrder, OrderStatus, Payment, StockLevel, Transaction

Rows = list[tuple[Any, ...]]
_CUSTOMER = "c_w_id = %s AND c_d_id = %s AND c_id = %s"


class Session(Protocol):
    """Runs one statement and gives its rows. Raises the driver's errors."""

    def run(self, sql: str, *values: object) -> Rows: ...


def perform(session: Session, transaction: Transaction) -> None:
    """Begin, do, and commit or, for an order of no item, roll back. Raises the driver's errors; rolls back nothing
    then."""
    session.run("BEGIN")
    done = _PARTS[type(transaction)](session, transaction)
    session.run("COMMIT" if done else "ROLLBACK")


def _new_order(session: Session, t: NewOrder) -> bool:
    w, d = t.warehouse, t.district
    [(w_tax,)] = session.run("SELECT w_tax FROM warehouse WHERE w_id = %s", w)
    [(d_tax, order)] = session.run(
        "SELECT d_tax, d_next_o_id FROM district WHERE d_w_id = %s AND d_id = %s FOR UPDATE", w, d
    )
    session.run("UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = %s AND d_id = %s", w, d)
    [(discount, _, _)] = session.run(
        f"SELECT c_discount, c_last, c_credit FROM customer WHERE {_CUSTOMER}", w, d, t.customer
    )
    local = all(supplier == w for _, supplier, _ in t.lines)
    session.run(
        "INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_carrier_id, o_ol_cnt, o_all_local) "
        "VALUES (%s, %s, %s, %s, %s, NULL, %s, %s)",
        w, d, order, t.customer, t.date, len(t.lines), int(local),
    )  # fmt: skip
    session.run("INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES (%s, %s, %s)", w, d, order)
    total = Decimal(0)
    for number, (item, supplier, quantity) in enumerate(t.lines, 1):
        found = session.run("SELECT i_price, i_name, i_data FROM item WHERE i_id = %s", item)
        if not found:
            return False
        amount = found[0][0] * quantity
        total += amount
        _take_from_stock(session, t, (order, number), item, supplier, quantity, amount)
    assert total * (1 - discount) * (1 + w_tax + d_tax) >= 0
    return True


def _take_from_stock(
    session: Session, t: NewOrder, line: tuple[int, int], item: int, supplier: int, quantity: int, amount: Decimal
) -> None:
    [(in_stock, info, _)] = session.run(
        "SELECT s_quantity, s_dist, s_data FROM stock WHERE s_w_id = %s AND s_i_id = %s FOR UPDATE", supplier, item
    )
    left = in_stock - quantity if in_stock >= quantity + 10 else in_stock - quantity + 91
    session.run(
        "UPDATE stock SET s_quantity = %s, s_ytd = s_ytd + %s, s_order_cnt = s_order_cnt + 1, "
        "s_remote_cnt = s_remote_cnt + %s WHERE s_w_id = %s AND s_i_id = %s",
        left, quantity, int(supplier != t.warehouse), supplier, item,
    )  # fmt: skip
    session.run(
        "INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_delivery_d, "
        "ol_quantity, ol_amount, ol_dist_info) VALUES (%s, %s, %s, %s, %s, %s, NULL, %s, %s, %s)",
        t.warehouse, t.district, *line, item, supplier, quantity, amount, info,
    )  # fmt: skip


def _payment(session: Session, t: Payment) -> bool:
    w, d = t.warehouse, t.district
    amount = Decimal(t.amount) / 100
    session.run("UPDATE warehouse SET w_ytd = w_ytd + %s WHERE w_id = %s", amount, w)
    [(house, _)] = session.run("SELECT w_name, w_state FROM warehouse WHERE w_id = %s", w)
    session.run("UPDATE district SET d_ytd = d_ytd + %s WHERE d_w_id = %s AND d_id = %s", amount, w, d)
    [(quarter,)] = session.run("SELECT d_name FROM district WHERE d_w_id = %s AND d_id = %s", w, d)
    whose = (t.customer_warehouse, t.customer_district, _customer_id(session, t))
    [(credit, data)] = session.run(f"SELECT c_credit, c_data FROM customer WHERE {_CUSTOMER} FOR UPDATE", *whose)
    session.run(
        "UPDATE customer SET c_balance = c_balance - %s, c_ytd_payment = c_ytd_payment + %s, "
        f"c_payment_cnt = c_payment_cnt + 1 WHERE {_CUSTOMER}",
        amount, amount, *whose,
    )  # fmt: skip
    if credit == "BC":
        noted = f"{whose} {w} {d} {amount} | {data}"[:500]
        session.run(f"UPDATE customer SET c_data = %s WHERE {_CUSTOMER}", noted, *whose)
    session.run(
        "INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        whose[2], whose[1], whose[0], d, w, t.date, amount, f"{house}  {quarter}",
    )  # fmt: skip
    return True


def _customer_id(session: Session, t: Payment | OrderStatus) -> int:
    """By last name, the one in the middle of those that have it, by first name."""
    if isinstance(t.customer, int):
        return t.customer
    if isinstance(t, Payment):
        where = (t.customer_warehouse, t.customer_district)
    else:
        where = (t.warehouse, t.district)
    found = session.run(
        "SELECT c_id, c_first FROM customer WHERE c_w_id = %s AND c_d_id = %s AND c_last = %s ORDER BY c_first, c_id",
        *where, t.customer,
    )  # fmt: skip
    ident: int = found[(len(found) - 1) // 2][0]
    return ident


def _order_status(session: Session, t: OrderStatus) -> bool:
    w, d, customer = t.warehouse, t.district, _customer_id(session, t)
    session.run(f"SELECT c_balance, c_first, c_last FROM customer WHERE {_CUSTOMER}", w, d, customer)
    newest = session.run(
        "SELECT o_id, o_entry_d, o_carrier_id FROM orders WHERE o_w_id = %s AND o_d_id = %s AND o_c_id = %s "
        "ORDER BY o_id DESC LIMIT 1",
        w, d, customer,
    )  # fmt: skip
    for order, _, _ in newest:
        session.run(
            "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line "
            "WHERE ol_w_id = %s AND ol_d_id = %s AND ol_o_id = %s ORDER BY ol_number",
            w, d, order,
        )  # fmt: skip
    return True


def _delivery(session: Session, t: Delivery) -> bool:
    w = t.warehouse
    for d in range(1, t.districts + 1):
        oldest = session.run(
            "SELECT no_o_id FROM new_order WHERE no_w_id = %s AND no_d_id = %s ORDER BY no_o_id LIMIT 1 FOR UPDATE",
            w,
            d,
        )
        for (order,) in oldest:
            where = (w, d, order)
            session.run("DELETE FROM new_order WHERE no_w_id = %s AND no_d_id = %s AND no_o_id = %s", *where)
            [(customer,)] = session.run(
                # Locking, as the read of new_order: a plain one has the snapshot of an earlier district's.
                "SELECT o_c_id FROM orders WHERE o_w_id = %s AND o_d_id = %s AND o_id = %s FOR UPDATE", *where
            )
            session.run(
                "UPDATE orders SET o_carrier_id = %s WHERE o_w_id = %s AND o_d_id = %s AND o_id = %s", t.carrier, *where
            )
            session.run(
                "UPDATE order_line SET ol_delivery_d = %s WHERE ol_w_id = %s AND ol_d_id = %s AND ol_o_id = %s",
                t.date, *where,
            )  # fmt: skip
            [(amount,)] = session.run(
                "SELECT SUM(ol_amount) FROM order_line WHERE ol_w_id = %s AND ol_d_id = %s AND ol_o_id = %s", *where
            )
            session.run(
                "UPDATE customer SET c_balance = c_balance + %s, c_delivery_cnt = c_delivery_cnt + 1 "
                f"WHERE {_CUSTOMER}",
                amount, w, d, customer,
            )  # fmt: skip
    return True


def _stock_level(session: Session, t: StockLevel) -> bool:
    w, d = t.warehouse, t.district
    [(next_order,)] = session.run("SELECT d_next_o_id FROM district WHERE d_w_id = %s AND d_id = %s", w, d)
    session.run(
        "SELECT COUNT(DISTINCT s_i_id) FROM order_line, stock WHERE ol_w_id = %s AND ol_d_id = %s AND ol_o_id < %s "
        "AND ol_o_id >= %s AND s_w_id = %s AND s_i_id = ol_i_id AND s_quantity < %s",
        w, d, next_order, next_order - 20, w, t.threshold,
    )  # fmt: skip
    return True


_PARTS: dict[type, Callable[[Session, Any], bool]] = {
    NewOrder: _new_order,
    Payment: _payment,
    OrderStatus: _order_status,
    Delivery: _delivery,
    StockLevel: _stock_level,
}
