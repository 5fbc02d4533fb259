"""M3AE (Geng et al., 2022): images and their texts, both masked; and answers to questions by its encoder."""
