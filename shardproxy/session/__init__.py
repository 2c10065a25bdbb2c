"""PURE. What one client has set and holds: variables, schema, transaction, pins, prepared statements."""
