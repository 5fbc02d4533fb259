"""Evaluates the answers and rationales that a model writes, compared with answers that do not look at the image."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np
import torch
from torch import Tensor

from maskstream.pipelines.augment import CenterCrop
from maskstream.pipelines.modalities.fields import Field
from maskstream.pipelines.modalities.image_text.batch import PADDING, SPECIAL, ImageTextBatch, TextRows
from maskstream.pipelines.modalities.image_text.data import ImageTextData
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.tokenizer import read_tokenizer_facts
from maskstream.shards.members.text import ROLES
from maskstream.train.evaluate.evaluation import (
    KIND,
    Evaluation,
    Example,
    Score,
    TrainingLoss,
    read_shuffled,
    trained_on,
)

from .model import RationaleWriter, RationaleWriterConfig

MEASURED = 1024
"""The largest number of questions that are measured."""
KNOWN = 1 << 12
"""Maximum number of questions whose answers are counted."""
ANSWER, RATIONALE = "answer", "rationale"
_AT_ONCE = 128
READING = (
    "Held-out questions, with the true answer and rationale, and those that the model writes token by token, each the "
    "most probable one."
)
Ids = tuple[int, ...]
Texts = dict[str, Ids]
"""The token ids of each role."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Results by kind of question.

    Attributes:
        right: Fraction of right answers, token for token, by kind of question, "all" first.
        frequent: The same of always giving the most frequent answer to the kind.
        unseen: The same accuracy for giving the most frequent answer to the same words.
        rationales: Fraction of rationales that are right; None without any.
        tokens: Fraction of their tokens that the written ones contain.
        questions: Number of questions of each kind.
    """

    right: Mapping[str, float]
    frequent: Mapping[str, float]
    unseen: Mapping[str, float]
    rationales: float | None
    tokens: float | None
    questions: Mapping[str, int]

    def scores(self) -> Iterator[Score]:
        """Yield the scores by kind of question, then of rationales."""
        for kind, share in self.right.items():
            guesses = {
                "the most frequent answer to the kind of question": self.frequent[kind],
                "the most frequent answer to the same words": self.unseen[kind],
            }
            name = "right answers" if kind == "all" else f"right answers, {kind}"
            yield Score.share(name, share, "questions", self.questions[kind], guesses)
        for name, value in (("right rationales", self.rationales), ("words of rationales written", self.tokens)):
            if value is not None:
                yield Score.share(name, value, "questions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Writing(Example):
    """Questions of a batch, with the true texts of each and the texts that a model wrote, as token ids by role."""

    batch: ImageTextBatch
    true: Sequence[Mapping[str, tuple[int, ...]]]
    made: Sequence[Mapping[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A question: its kind, its tokens, the true texts, and the texts that the model wrote."""

    kind: str
    words: Ids
    true: Texts
    made: Texts


def find_special_ids(data: Manifest) -> tuple[int, int]:
    """Return the ids that begin and end texts in a split; raise ValueError if its tokenizer has none."""
    facts = read_tokenizer_facts(data.location, data.info)
    if facts.begin is None or facts.end is None:
        raise ValueError(f"written texts begin and end with special tokens, but the tokenizer of {data} has none")
    return facts.begin, facts.end


@torch.inference_mode()
def write(
    config: ImageTextData, model: RationaleWriter, batch: ImageTextBatch, special: tuple[int, int]
) -> list[Texts]:
    """Return the model's texts for each row, by role, following the strategy of `config`, target and then.

    In two stages, the first appends its texts to the row's, and the second reads all of them.

    Args:
        config: Data config of the run.
        model: The model.
        batch: Batch of questions.
        special: Ids that begin and end texts.
    """
    begin, end = special
    made = _parts(model.written(batch, begin=begin, end=end, texts=len(config.target)), config.target, special)
    if not config.then:
        return made
    rows = [[found.get(role, ()) for role in config.target] for found in made]
    second = replace(batch, text=append_texts(batch.text, rows, end))
    after = _parts(model.written(second, begin=begin, end=end, texts=len(config.then)), config.then, special)
    return [{**one, **other} for one, other in zip(made, after, strict=True)]


def append_texts(rows: TextRows, texts: Sequence[Sequence[Ids]], end: int) -> TextRows:
    """Append texts to rows, each followed by `end`, cut at the rows' length.

    Args:
        rows: The rows.
        texts: Texts of each row.
        end: Id that ends a text.
    """
    tokens, roles = rows.tokens.clone(), rows.roles.clone()
    for i, more in enumerate(texts):
        place = int(rows.valid[i].sum())
        ids = [token for text in more for token in (*text, end)][: tokens.shape[1] - place]
        tokens[i, place : place + len(ids)] = torch.tensor(ids, dtype=tokens.dtype)
        roles[i, place : place + len(ids)] = SPECIAL
    return replace(rows, tokens=tokens, roles=roles)


def list_true_texts(rows: TextRows, i: int) -> Texts:
    """Return the ids of each role of row `i`.

    Args:
        rows: Token rows of a batch.
        i: Row.
    """
    tokens, roles = rows.tokens[i].tolist(), rows.roles[i].tolist()
    found: dict[str, list[int]] = {}
    for token, role in zip(tokens, roles, strict=True):
        if role not in (SPECIAL, PADDING):
            found.setdefault(ROLES[role], []).append(token)
    return {role: tuple(ids) for role, ids in found.items()}


def measure_texts(asked: Iterable[Asked], known: Iterable[Asked]) -> Written:
    """Measure the answers and rationales of questions.

    Args:
        asked: Questions with the model's texts.
        known: Questions whose answers are counted for the baselines.

    Raises:
        ValueError: `asked` is empty.
    """
    by_kind: dict[Hashable, Counter[Ids]] = defaultdict(Counter)
    by_words: dict[Ids, Counter[Ids]] = defaultdict(Counter)
    for one in known:
        by_kind[one.kind][one.true.get(ANSWER, ())] += 1
        by_words[one.words][one.true.get(ANSWER, ())] += 1
    right: dict[str, list[tuple[bool, bool, bool]]] = {"all": []}
    rationales: list[bool] = []
    shared: list[float] = []
    for one in asked:
        true = one.true.get(ANSWER, ())
        counts = by_kind.get(one.kind, Counter())
        frequent = _find_most_frequent(counts)
        same = _find_most_frequent(by_words[one.words]) if one.words in by_words else frequent
        row = (one.made.get(ANSWER) == true, frequent == true, same == true)
        for kind in ("all", one.kind) if one.kind else ("all",):
            right.setdefault(kind, []).append(row)
        if RATIONALE in one.true and RATIONALE in one.made:
            reasons, made = one.true[RATIONALE], one.made[RATIONALE]
            rationales.append(made == reasons)
            shared.append((Counter(reasons) & Counter(made)).total() / len(reasons))
    if not right["all"]:
        raise ValueError("the split has no questions; use a split with at least one")
    kinds = ["all", *sorted(kind for kind in right if kind != "all")]
    shares = [{kind: float(np.mean([row[i] for row in right[kind]])) for kind in kinds} for i in range(3)]
    return Written(
        right=shares[0],
        frequent=shares[1],
        unseen=shares[2],
        rationales=float(np.mean(rationales)) if rationales else None,
        tokens=float(np.mean(shared)) if shared else None,
        questions={kind: len(right[kind]) for kind in kinds},
    )


def with_true_texts(config: ImageTextData) -> ImageTextData:
    """Return a recipe's data with whole images, the true answer and rationale as targets, and the kinds of
    questions.
    """
    return replace(
        config,
        image_mask=None,
        text_mask=None,
        target=(ANSWER, RATIONALE),
        then=(),
        views=1,
        augment=CenterCrop(),
        colour=None,
        fields=(Field(name=KIND, default=""),),
    )


def read_questions(config: ImageTextData, data: Manifest, most: int, size: int = _AT_ONCE) -> Iterable[ImageTextBatch]:
    """Return batches of shuffled questions of a split with their true texts.

    Args:
        config: Data config of the run.
        data: The split.
        most: Largest number of questions.
        size: Questions per batch.
    """
    return read_shuffled(with_true_texts(config), data, most=most, size=size)


def measure_writing(config: ImageTextData, model: RationaleWriter | None, data: Manifest) -> Written:
    """Measure a model, or one that writes nothing, on shuffled questions; answers are counted in `trained_on(data)`.

    Args:
        config: Data config of the run.
        model: The model; None writes nothing.
        data: The split.
    """
    special = find_special_ids(data)
    asked = (
        one
        for batch in read_questions(config, data, MEASURED)
        for one in _asked(batch, [{}] * len(batch) if model is None else write(config, model, batch, special))
    )
    known = (
        one for batch in read_questions(config, trained_on(data), KNOWN) for one in _asked(batch, [{}] * len(batch))
    )
    return measure_texts(asked, known)


def evaluate(model: RationaleWriter, config: ImageTextData, data: Manifest, shown: int) -> Evaluation:
    """Measure the right answers on a held-out split, compared with answers that ignore the image, and show some.

    Args:
        model: The model, in eval mode.
        config: Data config of the run.
        data: The split.
        shown: Number of examples to show.
    """
    found = measure_writing(config, model, data)
    batch = next(iter(read_questions(config, data, shown, shown)))
    made = write(config, model, batch, find_special_ids(data))
    true = [{} if batch.target is None else list_true_texts(batch.target, i) for i in range(len(made))]
    return Evaluation(
        scores=tuple(found.scores()),
        examples=(Writing(title="Answers", reading=READING, batch=batch, true=true, made=made),),
        loss=TrainingLoss(
            name="The mean cross-entropy of the written tokens in nats",
            baseline="all ids of the vocabulary equally likely",
            value=log(model.config.vocabulary),
        ),
        learns="An encoder-decoder learns to write the answer to a question about an image, and its rationale.",
    )


def _asked(batch: ImageTextBatch, made: Sequence[Texts]) -> Iterable[Asked]:
    kinds = batch.fields.get(KIND, [""] * len(batch))
    assert batch.target is not None
    for i, texts in enumerate(made):
        words = tuple(batch.text.tokens[i][batch.text.valid[i]].tolist())
        yield Asked(kind=str(kinds[i]), words=words, true=list_true_texts(batch.target, i), made=texts)


def _parts(rows: Tensor, roles: Sequence[str], special: tuple[int, int]) -> list[Texts]:
    """Split rows of ids at the tokens that end a text, and return the texts by role."""
    found = []
    for row in rows[:, 1:].tolist():
        texts: list[list[int]] = [[]]
        for token in row:
            if token == special[1]:
                texts.append([])
            else:
                texts[-1].append(token)
        found.append({role: tuple(ids) for role, ids in zip(roles, texts, strict=False)})
    return found


def _find_most_frequent(counts: Counter[Ids]) -> Ids | None:
    """Return the most frequent answer; of equally frequent ones the first by its ids."""
    return min(counts, key=lambda ids: (-counts[ids], ids), default=None)


EVALUATIONS = {RationaleWriterConfig: evaluate}
