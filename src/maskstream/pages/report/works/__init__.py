"""The sections of a report on a model's predictions: one function per type of model, named by a modality's spec."""
