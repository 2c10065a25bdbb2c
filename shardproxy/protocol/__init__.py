"""Bytes to messages and back, for the protocols that we speak. Pure: no I/O, no clock, no randomness of its own."""
