"""DMAE (Bai et al., 2022): MAE with the features of a larger teacher."""
