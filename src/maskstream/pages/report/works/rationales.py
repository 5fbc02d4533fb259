"""A report's section on questions: the answers and rationales that a model writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ....pipelines.modalities.image_text.batch import ImageTextBatch
from ....pipelines.modalities.image_text.data import ImageTextData
from ....preprocess.encode.text.tokenizer import tokenizer_of
from ....train.papers.medthink.evaluate import Texts, held_out, questions, special_ids, true_texts, write
from ....train.papers.medthink.model import RationaleWriter
from ...figures.card import Card, Section, Words
from ...figures.figures import Figures
from ...figures.image_text import ImageTextFigures
from ...figures.work import Work

READING = (
    "Held-out questions, with the true answer and rationale, and those that the model writes token by token, each the "
    "most probable one."
)
NOTHING = "nothing"


def show_written(
    config: ImageTextData, model: RationaleWriter, data: str | Path, shown: int, figures: Figures[ImageTextBatch]
) -> Work:
    """What the model writes for shuffled questions."""
    if not isinstance(figures, ImageTextFigures):
        raise TypeError(f"answers are shown by ImageTextFigures, got {type(figures).__name__}")
    batch = next(iter(questions(config, data, shown, shown)))
    made = write(config, model, batch, special_ids(data))
    cards = tuple(_answered(figures, batch, made[i], i) for i in range(len(made)))
    section = Section(title="Answers", words=READING, cards=cards, layout="columns")
    return Work(found=held_out(config, model, data), sections=(section,))


def _answered(figures: ImageTextFigures, batch: ImageTextBatch, made: Texts, i: int) -> Card:
    """The card of a question with true and written texts."""
    card = figures.sample(replace(batch, text_mask=None, image_mask=None), i)
    true = {} if batch.target is None else true_texts(batch.target, i)
    texts = []
    for role in true:
        texts.append(_words(figures, true, role, f"The {role}"))
        if role in made:
            same = made[role] == true[role]
            texts.append(_words(figures, made, role, f"The {role} that the model writes{'' if same else ', another'}"))
    return replace(card, figures=(*card.figures, *texts), missing=(), words="", label=None)


def _words(figures: ImageTextFigures, texts: Mapping[str, tuple[int, ...]], role: str, title: str) -> Words:
    said = tokenizer_of(figures.text.tokenizer).decode(list(texts[role])) or NOTHING
    return Words(pieces=tuple((word, "", True) for word in said.split()), title=title)
