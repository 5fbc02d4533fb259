"""Knowledge-based visual questions for any predictor: three perspectives, few-shot images, retrieval and occlusion.

The perspectives follow the evaluation of GPT-4V by Li et al. (2023, "A comprehensive evaluation of GPT-4V on
knowledge-intensive visual question answering"): common sense, fine-grained world knowledge, and an answer with its
rationale. In the paper people judge rationales (consistent, sufficient, correct). Here they are compared with the data
set's rationales by ROUGE-L, which does not replace human judgement, and rationales that name the answer are counted.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np

from maskstream.pipelines.masks import Cues, Draw, Random, TokenGrid
from maskstream.pipelines.modalities.image.data import list_image_components
from maskstream.pipelines.modalities.image.decode import decode_image
from maskstream.pipelines.stream.rng import Place, sample_rng
from maskstream.shards.arrays import UInt8s
from maskstream.shards.config import Json
from maskstream.shards.errors import DataError, ShardError
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import normalise, rouge_l, score_exact_match, score_vqa

from .options import ASKS, KbvqaSettings

PEOPLE = 10
"""Number of answers of a question in OK-VQA and A-OKVQA, by which VQA accuracy is defined."""
GREY = 128
"""The level of hidden patches."""
PATCHES = 8
"""Number of patches along a side of an image for occlusion."""
SIDE = 256
"""Side of the images of a composite, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question of a split.

    Attributes:
        key: Key of the sample.
        image: RGB, uint8 (h, w, 3).
        text: The question.
        answers: All answers that are accepted as correct.
        choices: Choices, if the data set has them.
        rationales: Rationales, if the data set has them.
        kind: Kind of the question, or "".
    """

    key: str
    image: UInt8s = field(repr=False)
    text: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    rationales: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """The input of a predictor.

    Attributes:
        id: Unique id of the prompt.
        text: The whole prompt.
        question: The sample's question.
        choices: The sample's choices.
        image: RGB, uint8 (h, w, 3), with the images of the examples, if there are any.
    """

    id: str
    text: str
    question: str
    choices: tuple[str, ...]
    image: UInt8s = field(repr=False)


Predictor = Callable[[Sequence[Prompt]], Sequence[str]]
"""Gives one reply for each prompt, in their order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replied:
    """A question, its prompt, and the reply: the answer, and the rationale if the prompt asked for one."""

    question: Question
    prompt: Prompt
    answer: str
    rationale: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class KbvqaResult:
    """The results of a predictor.

    Attributes:
        predictor: Name of the predictor.
        data: Location of the questions.
        shots: Number of examples in a prompt.
        glosses: Number of glosses in a prompt.
        questions: Number of questions by kind.
        scores: Scores in [0, 1] by perspective and kind of question ("all" for all): exact (match), vqa (accuracy, if
            questions have ten answers), and for rationales rouge_l and names_answer.
        frequent: Exact match of the most frequent training answer, by kind of question.
        occluded: Exact match in the perspective `knowledge` by fraction of hidden patches.
    """

    predictor: str
    data: str
    shots: int
    glosses: int
    questions: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Mapping[str, float]]]
    frequent: Mapping[str, float]
    occluded: Mapping[float, float]

    def to_dict(self) -> Json:
        """Return the result as JSON."""
        return {
            **asdict(self),
            "occluded": [{"hidden": ratio, "exact": value} for ratio, value in self.occluded.items()],
        }


def read_questions(data: Manifest, samples: int, seed: int = 0) -> list[Question]:
    """Read random questions of a split of images with texts.

    A sample needs a `question` and an `answer`, or `answers`, in its `json`.

    Args:
        data: The split.
        samples: Largest number of questions.
        seed: Seed of the selection.

    Raises:
        ShardError: The split has another modality.
    """
    if data.info["modality"] != "image-text":
        raise ShardError(f"{data} contains {data.info['modality']} shards, but questions need images with texts")
    components = list_image_components(data)
    chosen = np.random.Generator(np.random.Philox(seed)).permutation(len(data))[:samples]
    return [_make_question(data, components, int(index)) for index in sorted(chosen)]


def _make_question(manifest: Manifest, components: Sequence[str], index: int) -> Question:
    name = next(one for one in components if manifest.components[one].present[index])
    facts = manifest.components[name].facts
    with manifest.reading(index, name):
        picture, said = manifest.store.read_many([manifest.member(index, name), manifest.member(index, "json")])
        pixels = decode_image(picture, int(facts["width"][index]), int(facts["height"][index]))
    with manifest.reading(index, "json"):
        told = json.loads(said)
        answers = _list_texts(told.get("answers", told.get("answer")))
        if not isinstance(told.get("question"), str) or not answers:
            raise DataError("has no question with an answer; use a split with questions, such as easy-vqa")
    return Question(
        key=manifest.key(index),
        image=pixels,
        text=told["question"],
        answers=answers,
        choices=_list_texts(told.get("choice")),
        rationales=_list_texts(told.get("rationale")),
        kind=str(told.get("kind", "")),
    )


def _list_texts(given: Any) -> tuple[str, ...]:
    """Return a text or a list of texts as a tuple."""
    return (given,) if isinstance(given, str) else tuple(map(str, given)) if isinstance(given, list) else ()


def write_prompt(
    question: Question,
    perspective: str,
    *,
    examples: Sequence[Question] = (),
    glosses: Sequence[str] = (),
    hidden: float = 0.0,
    seed: int = 0,
) -> Prompt:
    """Write the prompt of a question.

    Args:
        question: The question.
        perspective: Perspective of the prompt.
        examples: Solved examples before it, in one composite image.
        glosses: Knowledge to include.
        hidden: Fraction of the image's patches to turn grey, drawn by `masks.Random` from the question's key.
        seed: Seed of the hidden patches.
    """
    image = hide_patches(question.image, hidden, question.key, seed)
    lines = []
    if examples:
        image = compose([*(one.image for one in examples), image])
        lines = [
            f"Picture {number}. Question: {one.text}{_format_choices(one)} Answer: {one.answers[0]}"
            + (f" Rationale: {one.rationales[0]}" if perspective == "rationale" and one.rationales else "")
            for number, one in enumerate(examples, 1)
        ]
        lines.append(f"The question is about picture {len(examples) + 1}, the last one.")
    lines += [f"Known: {gloss}" for gloss in glosses]
    lines += [f"Question: {question.text}{_format_choices(question)}", ASKS[perspective]]
    return Prompt(
        id=f"{question.key} {perspective} {hidden:g}",
        text="\n".join(lines),
        question=question.text,
        choices=question.choices,
        image=image,
    )


def _format_choices(question: Question) -> str:
    return f" Choices: {'; '.join(question.choices)}." if question.choices else ""


def hide_patches(image: UInt8s, ratio: float, key: str, seed: int = 0) -> UInt8s:
    """Turn some of an image's PATCHES x PATCHES patches grey; a higher ratio hides additional patches, not different
    ones.

    Args:
        image: RGB, uint8 (h, w, 3).
        ratio: Fraction of patches to hide.
        key: Key of the sample, which determines the patches.
        seed: Seed of the patches.
    """
    if not ratio:
        return image
    grid = TokenGrid(axes=("h", "w"), shape=(PATCHES, PATCHES), patch=(1, 1))
    draw = Draw.of(seed, 0, key, 0, Place(), Cues(), part="image")
    hidden = Random(ratio=ratio).hide(grid, draw)
    cells = hidden.reshape(PATCHES, PATCHES).astype(np.uint8)
    height, width = image.shape[:2]
    covers = cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.bool_)
    return np.where(covers[..., None], np.uint8(GREY), image)


def compose(images: Sequence[UInt8s]) -> UInt8s:
    """Arrange images in rows, each fitted into SIDE x SIDE pixels on white: uint8 (h, w, 3)."""
    across = int(np.ceil(np.sqrt(len(images))))
    down = -(-len(images) // across)
    whole = np.full((down * SIDE, across * SIDE, 3), 255, np.uint8)
    for number, image in enumerate(images):
        scale = SIDE / max(image.shape[:2])
        size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
        fitted = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        y, x = number // across * SIDE, number % across * SIDE
        whole[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    return whole


def kbvqa(
    questions: Sequence[Question],
    known: Sequence[Question],
    predictor: Predictor,
    settings: KbvqaSettings,
    *,
    name: str = "",
    data: str = "",
) -> tuple[KbvqaResult, list[Replied]]:
    """Ask a predictor all questions in each perspective.

    Args:
        questions: Questions to ask.
        known: Questions of the training split, for examples and counts of answers.
        predictor: The predictor.
        settings: Settings of the evaluation.
        name: Name of the predictor.
        data: Location of the questions.

    Returns:
        The scores and the replies.

    Raises:
        ValueError: There are too few questions or examples.
    """
    if not questions or settings.shots > len(known):
        raise ValueError(
            f"there are only {len(questions)} questions, and {len(known)} for {settings.shots} examples; use larger "
            "splits"
        )
    asked = _Asked(questions, known, predictor, settings)
    replies = {perspective: asked.replies(perspective) for perspective in settings.perspectives}
    counts = Counter(question.kind for question in questions)
    result = KbvqaResult(
        predictor=name,
        data=str(data),
        shots=settings.shots,
        glosses=0 if settings.glosses is None else settings.passages,
        questions={"all": len(questions), **{kind: counts[kind] for kind in sorted(counts) if kind}},
        scores={perspective: _average_scores(some) for perspective, some in replies.items()},
        frequent=_score_frequent(questions, known),
        occluded={
            ratio: _average_scores(asked.replies("knowledge", ratio))["all"]["exact"] for ratio in settings.hidden
        },
    )
    return result, [one for some in replies.values() for one in some]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The questions of a run, and how they are asked."""

    questions: Sequence[Question]
    known: Sequence[Question]
    predictor: Predictor
    settings: KbvqaSettings

    def replies(self, perspective: str, hidden: float = 0.0) -> list[Replied]:
        """Return the replies in a perspective."""
        found: Sequence[Sequence[str]] = [()] * len(self.questions)
        glosses, passages = self.settings.glosses, self.settings.passages
        if perspective == "knowledge" and glosses is not None:
            first = self._collect_replies(perspective, hidden, found)
            found = [glosses.found(self._query(one), passages) for one in first]
        return self._collect_replies(perspective, hidden, found)

    def _query(self, replied: Replied) -> str:
        return " ".join((replied.question.text, *replied.question.choices, replied.answer))

    def _collect_replies(self, perspective: str, hidden: float, glosses: Sequence[Sequence[str]]) -> list[Replied]:
        seed = self.settings.seed
        prompts = [
            write_prompt(one, perspective, examples=self._list_examples(one), glosses=own, hidden=hidden, seed=seed)
            for one, own in zip(self.questions, glosses, strict=True)
        ]
        replies = self.predictor(prompts)
        if len(replies) != len(prompts):
            raise ValueError(
                f"the predictor returned {len(replies)} replies to {len(prompts)} prompts; it must return one for each"
            )
        return [
            Replied(question=question, prompt=prompt, **_read(reply))
            for question, prompt, reply in zip(self.questions, prompts, replies, strict=True)
        ]

    def _list_examples(self, question: Question) -> list[Question]:
        rng, shots = sample_rng(self.settings.seed, 0, question.key, 0, "examples"), self.settings.shots
        return [self.known[i] for i in rng.choice(len(self.known), shots, replace=False)] if shots else []


def _read(reply: str) -> dict[str, str]:
    """Return the answer and the rationale of a reply, which may label them; otherwise all of it is the answer."""
    answer = re.search(r"answer\s*:\s*(.*?)\s*(?:\n|rationale\s*:|$)", reply, re.IGNORECASE)
    rationale = re.search(r"rationale\s*:\s*(.*)", reply, re.IGNORECASE | re.DOTALL)
    before = reply if rationale is None else reply[: rationale.start()]
    return {
        "answer": (before if answer is None else answer[1]).strip().rstrip("."),
        "rationale": "" if rationale is None else rationale[1].strip(),
    }


def _average_scores(replies: Sequence[Replied]) -> dict[str, dict[str, float]]:
    """Return the means of each score over all questions and over each kind."""
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for one in replies:
        figures = {"exact": score_exact_match(one.answer, one.question.answers)}
        if len(one.question.answers) == PEOPLE:
            figures["vqa"] = score_vqa(one.answer, one.question.answers)
        if one.prompt.id.split(" ")[-2] == "rationale" and one.question.rationales:
            named = f" {normalise(one.answer)} " in f" {normalise(one.rationale)} "
            figures |= {"rouge_l": rouge_l(one.rationale, one.question.rationales), "names_answer": float(named)}
        for kind in {"all", one.question.kind} - {""}:
            rows[kind].append(figures)
    names = ("exact", "vqa", "rouge_l", "names_answer")
    return {
        kind: {name: float(np.mean(own)) for name in names if (own := [row[name] for row in some if name in row])}
        for kind, some in sorted(rows.items())
    }


def _score_frequent(questions: Sequence[Question], known: Sequence[Question]) -> dict[str, float]:
    """Return the exact match of always giving the most frequent known answer of the kind."""
    guess = find_frequent_answers(known)
    right: dict[str, list[float]] = defaultdict(list)
    for one in questions:
        for kind in {"all", one.kind} - {""}:
            right[kind].append(score_exact_match(guess.get(one.kind, guess[""]), one.answers))
    return {kind: float(np.mean(some)) for kind, some in sorted(right.items())}


def find_frequent_answers(known: Sequence[Question]) -> dict[str, str]:
    """Return the most frequent answer to the questions of each kind, and to all at ""."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in known:
        for kind in {"", one.kind}:
            counts[kind][one.answers[0]] += 1
    if not counts:
        raise ValueError("the most frequent answer needs at least one known question, got none")
    return {kind: min(own, key=lambda answer: (-own[answer], answer)) for kind, own in counts.items()}
