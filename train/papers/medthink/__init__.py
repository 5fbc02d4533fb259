"""MedThink (Gai et al., 2024): answers to questions about images, with reasons."""
