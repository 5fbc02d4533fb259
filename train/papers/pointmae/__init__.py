"""Point-MAE (Pang et al., 2022): hidden groups of points."""
