"""Text: token ids of documents, packed or one a row, and masks."""
