"""Stores read checked byte ranges of files; outputs write files that appear whole."""
