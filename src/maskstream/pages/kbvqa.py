"""The page of an evaluation on questions that need knowledge: its figures, and questions with what was replied."""

from collections.abc import Sequence
from pathlib import Path

from maskstream.train.papers.kbvqa.evaluate import KbvqaResult, Replied

from .figures.card import Card, Section, join_picture_row
from .figures.pictures import picture, shrunk
from .figures.words import plural
from .page import page, write_page

SHOWN, SIDE_PX = 6, 320
NAMES = {
    "exact": "exact match",
    "vqa": "VQA accuracy",
    "rouge_l": "ROUGE-L of rationales",
    "names_answer": "rationales that name the answer",
}
LEDE = (
    "Questions about pictures that need knowledge, asked from the three perspectives of the evaluation of GPT-4V by Li "
    "et al. (2023). The predictor is {predictor}; it stands where a large model would, and its figures say nothing "
    "about one. Rationales were judged by people in the paper, and are compared with those of the set here."
)
PERSPECTIVES = {
    "commonsense": "Common sense: a short answer.",
    "knowledge": "Fine-grained knowledge of the world: a short answer, after what was retrieved, if anything was.",
    "rationale": "An answer with the reason for it.",
}


def write_kbvqa_page(result: KbvqaResult, replies: Sequence[Replied], out: str | Path) -> Path:
    """Writes the page of a result to `out`, with the first questions of each perspective."""
    facts = {"data": result.data, "questions": f"{result.questions['all']:,}", "examples": str(result.shots)}
    facts |= {"retrieved glosses": str(result.glosses)} if result.glosses else {}
    for perspective, kinds in result.scores.items():
        for kind, figures in kinds.items():
            words = ", ".join(f"{NAMES[name]} {value:.1%}" for name, value in figures.items())
            frequent = f"; the most frequent answer {result.frequent[kind]:.1%}"
            facts[f"{perspective}, {kind} ({result.questions.get(kind, 0):,})"] = words + frequent
    for ratio, value in result.occluded.items():
        facts[f"knowledge, {ratio:.0%} of the picture hidden"] = f"exact match {value:.1%}"
    sections = [
        Section(
            title=perspective,
            words=PERSPECTIVES[perspective],
            cards=tuple(map(_draw_card, [one for one in replies if _format_perspective(one) == perspective][:SHOWN])),
            layout="columns",
        )
        for perspective in result.scores
    ]
    html = page(
        kind="knowledge",
        title="Questions that need knowledge",
        lede=LEDE.format(predictor=result.predictor or "unnamed"),
        facts=facts,
        sections=sections,
        by_section=True,
    )
    return write_page(html, out)


def _format_perspective(replied: Replied) -> str:
    return replied.prompt.id.split(" ")[-2]


def _draw_card(replied: Replied) -> Card:
    """The picture of a prompt, the question, what counts as right and what was replied."""
    asked = replied.question
    right = "; ".join(dict.fromkeys(asked.answers[:4]))
    note = f"{asked.text} Right: {right}. Replied: {replied.answer or 'nothing'}."
    if replied.rationale:
        note += f" Because: {replied.rationale}"
    shown = picture(shrunk(replied.prompt.image, SIDE_PX), f"picture of {asked.key}", asked.kind)
    return Card(
        key=asked.key,
        words=plural(len(asked.answers), "answer"),
        note=note,
        figures=(join_picture_row(shown),),
    )
