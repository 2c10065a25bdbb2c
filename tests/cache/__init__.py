"""Rows of MySQL as Redis keys."""
