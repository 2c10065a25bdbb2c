"""What is to be done with each Redis command."""
