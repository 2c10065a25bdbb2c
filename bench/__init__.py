"""Measurements on real servers: one file a bench (`./dev bench NAME`), what they stand on in `rig/`."""
