"""shardproxy: many MySQL servers behind one MySQL port."""

__version__ = "0.1.0"
