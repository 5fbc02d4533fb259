"""MPM (Zhang et al., 2023): poses in 2-D and 3-D, completed and lifted."""
