"""MaskViT (Gupta et al., 2022): hidden ids of frames, in windows of space and of time."""
