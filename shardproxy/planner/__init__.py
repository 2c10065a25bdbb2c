"""PURE. From statement text to a plan: once per digest, never on the hot path."""
