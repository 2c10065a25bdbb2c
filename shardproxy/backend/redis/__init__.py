"""Connections to Redis nodes."""
