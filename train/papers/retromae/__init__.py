"""RetroMAE (Xiao et al., 2022): a sentence vector from which a weak decoder reconstructs the text."""
