"""LMD (Ma et al., 2023): a masked autoencoder of latents."""
