"""The first batch of a recipe on a split, and a model whose weights are away from the beginning."""

from contextlib import closing

import torch


def first_batch(split, recipe):
    """What the recipe's loader gives first."""
    with closing(recipe.loader(split, steps=10, device="cpu", threads=1)) as loader:
        return next(iter(loader))


def shaken(recipe, by):
    """The recipe's model after a random step of the deviation `by`, for weights of zero hide what depends on them."""
    model = recipe.build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return model
