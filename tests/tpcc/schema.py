"""The nine tables of TPC-C and where their rows live: with their warehouse; items are whole everywhere.

A range map: so many warehouses on each shard, in order. A history row lives with the warehouse that took the payment,
so a payment for a customer of another warehouse writes on two shards, and so does an order of another's stock.
"""

from __future__ import annotations

from collections.abc import Sequence

DATABASE = "tpcc"
KEYS = {
    "warehouse": "w_id", "district": "d_w_id", "customer": "c_w_id", "history": "h_w_id", "orders": "o_w_id",
    "new_order": "no_w_id", "order_line": "ol_w_id", "stock": "s_w_id", "item": "",
}  # fmt: skip

DEFINITIONS = (
    "CREATE TABLE warehouse (w_id INT NOT NULL PRIMARY KEY, w_name VARCHAR(10), w_state CHAR(2), "
    "w_tax DECIMAL(4,4), w_ytd DECIMAL(12,2))",
    "CREATE TABLE district (d_w_id INT NOT NULL, d_id INT NOT NULL, d_name VARCHAR(10), d_tax DECIMAL(4,4), "
    "d_ytd DECIMAL(12,2), d_next_o_id INT, PRIMARY KEY (d_w_id, d_id))",
    "CREATE TABLE customer (c_w_id INT NOT NULL, c_d_id INT NOT NULL, c_id INT NOT NULL, c_first VARCHAR(16), "
    "c_last VARCHAR(16), c_credit CHAR(2), c_discount DECIMAL(4,4), c_balance DECIMAL(12,2), "
    "c_ytd_payment DECIMAL(12,2), c_payment_cnt INT, c_delivery_cnt INT, c_data VARCHAR(500), "
    "PRIMARY KEY (c_w_id, c_d_id, c_id), KEY (c_w_id, c_d_id, c_last, c_first))",
    "CREATE TABLE history (h_c_id INT, h_c_d_id INT, h_c_w_id INT, h_d_id INT, h_w_id INT NOT NULL, h_date DATETIME, "
    "h_amount DECIMAL(6,2), h_data VARCHAR(24), KEY (h_w_id))",
    "CREATE TABLE orders (o_w_id INT NOT NULL, o_d_id INT NOT NULL, o_id INT NOT NULL, o_c_id INT, o_entry_d DATETIME, "
    "o_carrier_id INT, o_ol_cnt INT, o_all_local INT, PRIMARY KEY (o_w_id, o_d_id, o_id), "
    "KEY (o_w_id, o_d_id, o_c_id, o_id))",
    "CREATE TABLE new_order (no_w_id INT NOT NULL, no_d_id INT NOT NULL, no_o_id INT NOT NULL, "
    "PRIMARY KEY (no_w_id, no_d_id, no_o_id))",
    "CREATE TABLE order_line (ol_w_id INT NOT NULL, ol_d_id INT NOT NULL, ol_o_id INT NOT NULL, "
    "ol_number INT NOT NULL, ol_i_id INT, ol_supply_w_id INT, ol_delivery_d DATETIME, ol_quantity INT, "
    "ol_amount DECIMAL(8,2), ol_dist_info CHAR(24), PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number))",
    "CREATE TABLE stock (s_w_id INT NOT NULL, s_i_id INT NOT NULL, s_quantity INT, s_dist CHAR(24), s_ytd INT, "
    "s_order_cnt INT, s_remote_cnt INT, s_data VARCHAR(50), PRIMARY KEY (s_w_id, s_i_id))",
    "CREATE TABLE item (i_id INT NOT NULL PRIMARY KEY, i_name VARCHAR(24), i_price DECIMAL(5,2), i_data VARCHAR(50))",
)


def keyspace_toml(shards: Sequence[str], warehouses_each: int) -> str:
    """Warehouses 1 to `warehouses_each` on the first shard, and so on."""
    edges = [warehouses_each * i + 1 for i in range(1, len(shards))]
    ranges = "\n".join(
        f'[[keyspaces.{DATABASE}.ranges]]\nfrom = {start}\nto = {end}\nshard = "{shard}"'
        for shard, start, end in zip(shards, ['"min"', *edges], [*edges, '"max"'], strict=True)
    )
    tables = "\n".join(
        f'{name} = {{ key = "{key}" }}' if key else f"{name} = {{ reference = true }}" for name, key in KEYS.items()
    )
    return (
        f'[keyspaces.{DATABASE}]\nkey_type = "int"\nmap = "range"\n{ranges}\n[keyspaces.{DATABASE}.tables]\n{tables}\n'
    )
