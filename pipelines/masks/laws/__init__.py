"""Laws: how many tokens are hidden."""
