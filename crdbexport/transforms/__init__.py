"""What may happen to batches before they are spooled: the base, and the two transforms that ship."""
