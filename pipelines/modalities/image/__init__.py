"""Pictures: loader, batch, and what happens to one sample."""
