"""Compact trainers: recipes, one loop, exact resume."""

from .export import load_model, save_model
from .loop import Batches, Trainer, TrainResult
from .metrics import StepMetrics, read_metrics
from .recipes import RECIPES, Recipe, named_recipe
from .run import train

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
