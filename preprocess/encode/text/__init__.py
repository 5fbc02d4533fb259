"""Texts: token ids, words and parts of speech."""
