"""Configs: frozen settings that are saved as plain JSON, compared and rebuilt.

Tube(ratio=0.8).to_dict()                                   {"kind": "Tube", "ratio": 0.8}
Mask.from_dict({"kind": "Tube", "ratio": 0.8})              Tube(ratio=0.8)
with_set(recipe, ["model.depth=6", "mask.ratio=0.8"])       the recipe with two fields changed
differences(saved, here)                                    ["data.mask.ratio: saved 0.9, here 0.8"]
compare([one, two, three])                                  {"data.mask.ratio": ("0.9", "0.8", "0.9")}
"""

from .assignments import with_set
from .base import NOT_IDENTITY, NOT_SAVED, Config, ConfigT, Json, compare, differences, known_configs, rebuild

__all__ = [
    "NOT_IDENTITY",
    "NOT_SAVED",
    "Config",
    "ConfigT",
    "Json",
    "compare",
    "differences",
    "known_configs",
    "rebuild",
    "with_set",
]
