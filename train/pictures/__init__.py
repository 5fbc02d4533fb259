"""What reports show of a model's work, one file a modality."""
