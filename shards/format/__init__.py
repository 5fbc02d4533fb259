"""The format: samples, tars, their manifest, and the checks of a finished split."""
