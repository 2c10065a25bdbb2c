"""The Redis front: clients' connections."""
