"""How a sample becomes tokens: one kind a file."""
