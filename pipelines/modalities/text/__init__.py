"""Text: token ids of documents, packed or one per row, and masks."""
