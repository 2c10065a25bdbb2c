"""Redis commands that are more than one command of one node."""
