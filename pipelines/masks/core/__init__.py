"""The parts of every mask: its grid, its input, its laws and roundings, its batch."""
