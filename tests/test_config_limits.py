"""Each limit declared on a field of a config refuses a value beyond it, with a message that names what is allowed."""

import re
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from maskstream.pipelines.augment.colour import ColourJitter
from maskstream.pipelines.masks import Random
from maskstream.pipelines.modalities.mesh.data import MeshNoise
from maskstream.pipelines.modalities.trajectory.data import TrajectoryData
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.shards.config import Config
from maskstream.shards.limits import ASCENDING, FILLED, Bounds
from maskstream.train.core.optimiser import ScheduleConfig
from maskstream.train.nn.masked_autoencoder import VideoAutoencoderConfig
from maskstream.train.papers.jepa.vjepa import VideoJepaConfig
from maskstream.train.papers.pointmae.model import PointAutoencoderConfig

from .config_defaults import package_configs

MASK = {"mask": Random(ratio=0.5)}
SCHEDULE = {"base_lr": 1e-3}
REQUIRED: dict[str, dict[str, Any]] = {
    "ClassifierConfig": {"of": VideoAutoencoderConfig(), "classes": 2},
    "EncoderClassifierConfig": {"of": VideoJepaConfig(), "classes": 2},
    "Librosa": {"feature": "mfcc"},
    "Padded": MASK,
    "PointSegmenterConfig": {"of": PointAutoencoderConfig(), "parts": ((0, 1),)},
    "PointStats": {"mean": (0.0, 0.0, 0.0)},
    "Recipe": {
        "name": "own",
        "batch_size": 1,
        "data": VideoData(),
        "model": VideoAutoencoderConfig(),
        "schedule": ScheduleConfig(**SCHEDULE),
    },
    "Replace": MASK,
    "ScheduleConfig": SCHEDULE,
}
"""Values of fields without a default, where another field of the config has a limit."""


def find_limits(hint: Any) -> Iterator[tuple[Any, str]]:
    """Values beyond each limit of a type, with the words that describe the limit."""
    args = get_args(hint)
    if get_origin(hint) is Annotated:
        kind, *limits = args
        for limit in limits:
            if isinstance(limit, Bounds):
                yield from ((value, limit.describe()) for value in list_beyond(limit, kind))
            elif limit is FILLED:
                yield "" if kind is str else (), limit.describe()
        descending = (1.0, 0.5) if ASCENDING in limits else ()
        yield from ((value, ASCENDING.describe()) for value in [descending] if value)
        args = (kind,)
    if get_origin(hint) is tuple:
        length = 1 if args[-1] is Ellipsis else len(args)
        for arg in args:
            yield from ((length * (value,), words) for value, words in find_limits(arg))
    else:
        for arg in args:
            yield from find_limits(arg)


def list_beyond(limit: Bounds, kind: Any) -> list[Any]:
    """A number beyond each bound."""
    beyond = [limit.min - 1] if limit.min is not None else []
    beyond += [limit.max + 1] if limit.max is not None else []
    beyond += [bound for bound in (limit.above, limit.below) if bound is not None]
    beyond += [(limit.min or 0) + 1] if limit.multiple is not None else []
    return beyond if kind is int else [*beyond, float("nan")]


def test_every_declared_limit_refuses_what_is_beyond() -> None:
    n_limits, wrong = 0, []
    for cls in package_configs():
        for name, hint in get_type_hints(cls, include_extras=True).items():
            for value, words in find_limits(hint):
                n_limits += 1
                said = explain_refusal(cls, name, value)
                if not all(part in said for part in (f"{cls.kind()}: {name} must be ", words, f", got {value!r}")):
                    wrong.append(f"{cls.kind()}({name}={value!r}): {said or 'accepted'}")
    assert not wrong, "\n".join(wrong)
    assert n_limits > 300


def test_a_class_that_changes_a_default_keeps_the_limits() -> None:
    lost = []
    for cls in package_configs():
        hints = get_type_hints(cls, include_extras=True)
        for base in cls.__mro__[1:]:
            limited = get_type_hints(base, include_extras=True) if is_dataclass(base) else {}
            lost += [
                f"{cls.kind()}.{n}"
                for n, hint in limited.items()
                if [*find_limits(hint)] and not [*find_limits(hints[n])]
            ]
    assert not lost


def explain_refusal(cls: type[Config], name: str, value: Any) -> str:
    """The message that refuses a value of a field; "" if it is accepted."""
    try:
        cls(**REQUIRED.get(cls.kind(), {}) | {name: value})
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MeshNoise(deviation=0.0), "a number above 0 (noise=None for no noise), got 0.0"),
        (lambda: ColourJitter(hue=1.0), "a number from 0 to 0.5 turns, got 1.0"),
        (lambda: TrajectoryData(ahead_s=0), "a number above 0 and below 1000000 seconds, got 0"),
    ],
)
def test_a_limit_names_its_unit_or_remedy(make: Callable[[], Config], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()
