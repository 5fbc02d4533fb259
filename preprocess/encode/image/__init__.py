"""Pictures: from a file to a member."""
