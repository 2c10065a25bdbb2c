"""PURE. Statement text: digests and literals, classification, key predicates."""
