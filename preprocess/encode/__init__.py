"""Encoders, one per modality: they turn raw media into the members of a sample."""
