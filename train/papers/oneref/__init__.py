"""OneRef (Xiao et al., 2024): what a phrase refers to in an image."""
