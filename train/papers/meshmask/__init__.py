"""MeshMask (Garnier et al., 2025): graph networks of simulations, pre-trained on hidden nodes."""
