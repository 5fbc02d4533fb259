"""Training: recipes, models, one loop for all of them, and exact resume."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.hook import Hook, StepEvent
    from .core.loop import Trainer
    from .core.metrics import StepMetrics, read_metrics
    from .core.recipe import Recipe
    from .core.replay import ReplayedStep, replay
    from .core.results import TrainResult
    from .core.step import Batches
    from .core.weights import load_model, save_model
    from .finetune_run import FineTuneResult, finetune
    from .recipes import RECIPES, named_recipe, train
else:
    from maskstream.shards.lazy import lazy_names

    _find = lazy_names(
        __name__,
        {
            "core.weights": "load_model save_model",
            "core.hook": "Hook StepEvent",
            "core.loop": "Trainer",
            "core.metrics": "StepMetrics read_metrics",
            "core.recipe": "Recipe",
            "core.replay": "ReplayedStep replay",
            "core.results": "TrainResult",
            "core.step": "Batches",
            "finetune_run": "FineTuneResult finetune",
            "recipes": "RECIPES named_recipe train",
        },
        former={"FineTuned": "FineTuneResult", "Replayed": "ReplayedStep"},
    )

    def __getattr__(name: str) -> object:
        value = _find(name)
        if name in __all__:  # the imported object may read saved configs, which name models
            from .core.model import import_models

            import_models()
        return value


__all__ = [
    "RECIPES",
    "Batches",
    "FineTuneResult",
    "Hook",
    "Recipe",
    "ReplayedStep",
    "StepEvent",
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
