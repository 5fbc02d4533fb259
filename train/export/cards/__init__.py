"""Lines of Python that model cards have as they stand: how raw samples become what a model reads."""
