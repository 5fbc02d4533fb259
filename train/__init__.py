"""Training: recipes, models, one loop for all of them, and exact resume."""

from .core.export import load_model, save_model
from .core.loop import Trainer
from .core.metrics import StepMetrics, read_metrics
from .core.recipe import Recipe
from .core.replay import Replayed, replay
from .core.results import TrainResult
from .core.step import Batches
from .finetunes import FineTuned, finetune
from .recipes import RECIPES, named_recipe, train

__all__ = [
    "RECIPES",
    "Batches",
    "FineTuned",
    "Recipe",
    "Replayed",
    "StepMetrics",
    "TrainResult",
    "Trainer",
    "finetune",
    "load_model",
    "named_recipe",
    "read_metrics",
    "replay",
    "save_model",
    "train",
]
