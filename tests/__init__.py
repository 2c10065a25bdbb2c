"""Tests. A folder with a conftest.py of its own is a package, so that the conftests have different module names."""
