"""The page of an evaluation on knowledge-based questions: its scores, and questions with their replies."""

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
    "Knowledge-based questions about images, asked from the three perspectives of the evaluation of GPT-4V by Li "
    "et al. (2023). The predictor is {predictor}; its scores do not represent a large model. The paper had "
    "people judge rationales; here they are compared with the rationales of the data set."
)
PERSPECTIVES = {
    "commonsense": "Common sense: a short answer.",
    "knowledge": "Fine-grained world knowledge: a short answer, with retrieved glosses if there are any.",
    "rationale": "An answer with its rationale.",
}


def write_kbvqa_page(result: KbvqaResult, replies: Sequence[Replied], out: str | Path) -> Path:
    """Write the page of a result, with the first questions of each perspective.

    Args:
        result: The result.
        replies: All replies.
        out: HTML file.
    """
    facts = {"data": result.data, "questions": f"{result.questions['all']:,}", "examples": str(result.shots)}
    facts |= {"retrieved glosses": str(result.glosses)} if result.glosses else {}
    for perspective, kinds in result.scores.items():
        for kind, figures in kinds.items():
            words = ", ".join(f"{NAMES[name]} {value:.1%}" for name, value in figures.items())
            frequent = f"; the most frequent answer {result.frequent[kind]:.1%}"
            facts[f"{perspective}, {kind} ({result.questions.get(kind, 0):,})"] = words + frequent
    for ratio, value in result.occluded.items():
        facts[f"knowledge, {ratio:.0%} of the image hidden"] = f"exact match {value:.1%}"
    sections = [
        Section(
            title=perspective,
            words=PERSPECTIVES[perspective],
            cards=tuple(
                map(_draw_card, [one for one in replies if one.prompt.id.split(" ")[-2] == perspective][:SHOWN])
            ),
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


def _draw_card(replied: Replied) -> Card:
    """Draw the image of a prompt with the question, the right answers and the reply."""
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
