"""Compact trainers: recipes, one loop, exact resume."""

from .core.export import load_model, save_model
from .core.loop import Batches, Trainer, TrainResult
from .core.metrics import StepMetrics, read_metrics
from .core.run import train
from .recipes import RECIPES, Recipe, named_recipe

__all__ = [
    "RECIPES",
    "Batches",
    "Recipe",
    "StepMetrics",
    "TrainResult",
    "Trainer",
    "load_model",
    "named_recipe",
    "read_metrics",
    "save_model",
    "train",
]
