"""The same tasks, defined for each system."""
