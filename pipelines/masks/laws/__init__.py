"""How much is hidden."""
