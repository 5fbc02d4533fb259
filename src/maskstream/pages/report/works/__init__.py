"""What a report shows of a model's work: a function for each kind of model, which a modality's spec names."""
