"""The composition root: a supervisor, and the workers that it starts. The only place that wires objects."""
