"""The Channel-Attention Dense U-Net (Tolooshams et al., 2020): clean sound of several noisy microphones."""
