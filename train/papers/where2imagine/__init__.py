"""Where2Imagine of ImagineNav (Zhao et al., 2024): where a walk goes next."""
