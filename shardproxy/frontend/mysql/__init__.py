"""The MySQL front."""
