"""Where batches go: the base for all sinks, and the three that ship with the package."""
