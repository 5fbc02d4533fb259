"""Recursive ROAR (Madsen et al., 2022): how faithful measures of importance are."""
