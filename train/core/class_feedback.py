"""The channel by which a model's losses of classes reach the masks that follow them (masks.ByClass)."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from maskstream.pipelines.masks import ByClass, Feedback

from .recipe import Recipe

Part = TypeVar("Part")


@runtime_checkable
class ScoresClasses(Protocol):
    """A model that averages the losses of classes of tokens over the run. Its scores are saved with its weights.

    It has methods alone: from Python 3.12 on, `isinstance` does not find the buffers of a module.
    """

    def last_scores(self) -> Tensor:
        """The scores float64 (classes,) after the step before."""
        ...

    def next_scores(self) -> Tensor:
        """The scores float64 (classes,) after the last step, over all ranks; each rank calls it once a step."""
        ...


def with_channel(recipe: Recipe[Any]) -> Recipe[Any]:
    """The recipe with a new channel in each of its masks by class that has none."""
    return replace(recipe, data=_with_channel(recipe.data))


def channels_of(part: object) -> list[Feedback]:
    """The channels in the masks of a config, such as a recipe."""
    if isinstance(part, Feedback):
        return [part]
    if not is_dataclass(part):
        return []
    return [channel for f in fields(part) for channel in channels_of(getattr(part, f.name))]


def publish_scores(channels: list[Feedback], model: object, *, trained: bool = True) -> None:
    """Sends the scores of a model's classes, after a step if `trained`, to the masks.

    ValueError for a model that has none.
    """
    if not channels:
        return
    if not isinstance(model, ScoresClasses):
        raise ValueError(
            f"masks.ByClass follows the losses of classes, and a {type(model).__name__} has none; use a text model "
            "with model.classes, or a mask without feedback"
        )
    scores = model.next_scores() if trained else model.last_scores()
    for channel in channels:
        channel.publish(scores)


def _with_channel(part: Part) -> Part:
    if isinstance(part, ByClass) and part.feedback is None:
        made: Any = replace(part, feedback=Feedback(len(part.scores), part.scores))
        return made  # type: ignore[no-any-return]
    if not is_dataclass(part) or isinstance(part, type):
        return part
    changed = {f.name: _with_channel(getattr(part, f.name)) for f in fields(part) if f.init}
    changed = {name: new for name, new in changed.items() if new is not getattr(part, name)}
    return replace(part, **changed) if changed else part
