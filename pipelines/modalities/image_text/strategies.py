"""Target strategies: how a language model generates the answer to a question and its rationale.

Source: MedThink (Gai et al., 2024, section 4), whose code calls them without_R, Explanation, Reasoning, and
First-Stage_Reasoning with Second-Stage_Reasoning.
"""

from collections.abc import Mapping
from typing import Literal, TypedDict

Strategy = Literal["answer", "explanation", "reasoning", "two-stage"]


class Targets(TypedDict):
    """Fields of `ImageTextData` that a strategy sets."""

    target: tuple[str, ...]
    then: tuple[str, ...]


STRATEGIES: Mapping[Strategy, Targets] = {
    "answer": Targets(target=("answer",), then=()),
    "explanation": Targets(target=("answer", "rationale"), then=()),
    "reasoning": Targets(target=("rationale", "answer"), then=()),
    "two-stage": Targets(target=("rationale",), then=("answer",)),
}
"""Strategies by name: the answer alone; the answer, then the rationale; the rationale, then the answer; first the
rationale, then the answer to the question with the rationale. Use as `image_text_loader(..., text=("question",),
**STRATEGIES["reasoning"])`.
"""
