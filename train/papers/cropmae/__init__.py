"""CropMAE (Eymael et al., 2024) and SiamMAE (Gupta et al., 2023): the second of two views from the whole first."""
