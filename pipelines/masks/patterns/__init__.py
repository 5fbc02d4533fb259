"""Patterns: which tokens are hidden."""
