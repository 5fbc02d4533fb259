"""MedThink: what the decoder sees, what it writes, two stages, and how answers and rationales are counted."""

from dataclasses import replace

import pytest
import torch

from maskstream.modalities import MODALITIES
from maskstream.pages.report.drawn import make_sections
from maskstream.pipelines.modalities.image_text.strategies import STRATEGIES
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate_run import evaluate_model
from maskstream.train.papers.medthink.evaluate import (
    Asked,
    append_texts,
    find_special_ids,
    list_true_texts,
    measure_texts,
    write,
)
from maskstream.train.papers.medthink.model import RationaleWriterConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..first_batch import first_batch, shaken
from ..test_every_recipe import CUTS

BEGIN, END = 2, 3


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image-text", tmp_path_factory.mktemp("medthink"))


def small(*more):
    return chosen_recipe("medthink-tiny", (*CUTS["medthink"], "batch_size=5", "data.length=24", *more))


@pytest.fixture(scope="module")
def batch(split):
    return first_batch(split, small())


@pytest.fixture(scope="module")
def model():
    return shaken(small(), 0.1)


@torch.no_grad()
def test_a_word_depends_on_those_before_it_on_the_image_and_on_the_question(batch, model):
    tokens = batch.target.tokens
    before = model.predict_next_words(tokens, *model.read(batch))
    later = torch.where(torch.arange(tokens.shape[1]) > 4, 7, tokens)
    after = model.predict_next_words(later, *model.read(batch))
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:], atol=1e-4)
    others = (
        replace(batch, image=255 - batch.image),
        replace(batch, text=replace(batch.text, tokens=torch.where(batch.text.words >= 0, 9, batch.text.tokens))),
    )
    for other in others:
        assert not torch.allclose(model.predict_next_words(tokens, *model.read(other)), before, atol=1e-4)
    padded = replace(batch, text=replace(batch.text, tokens=torch.where(batch.text.valid, batch.text.tokens, 9)))
    torch.testing.assert_close(model.predict_next_words(tokens, *model.read(padded)), before)


@torch.no_grad()
def test_the_loss_is_that_of_the_true_words(batch, model):
    logits = model.predict_next_words(batch.target.tokens, *model.read(batch)).log_softmax(-1)
    losses = [
        -logits[i, at - 1, batch.target.tokens[i, at]]
        for i in range(len(batch))
        for at in range(1, int(batch.target.valid[i].sum()))
    ]
    torch.testing.assert_close(model.loss(batch).parts["words"].mean(), torch.stack(losses).mean())


@torch.no_grad()
def test_each_written_word_is_the_most_probable_one(batch, model):
    rows = model.written(batch, begin=BEGIN, end=END, texts=2)
    assert rows[:, 0].eq(BEGIN).all()
    best = model.predict_next_words(rows, *model.read(batch)).argmax(dim=-1)
    for row, likely in zip(rows.tolist(), best.tolist(), strict=True):
        ends = [at for at, token in enumerate(row) if token == END]
        last = ends[1] if len(ends) > 1 else len(row) - 1
        assert row[1 : last + 1] == likely[:last]
        assert set(row[last + 1 :]) <= {END}


class Scripted:
    """A model that writes given rows, one list per call, and keeps what it was asked."""

    def __init__(self, *rows):
        self.rows, self.asked = list(rows), []

    def written(self, batch, *, begin, end, texts):
        self.asked.append((batch.text, texts))
        return torch.tensor(self.rows.pop(0))


def test_texts_are_cut_by_the_order_of_the_strategy(batch):
    rows = [[BEGIN, 7, 8, END, 9, END], [BEGIN, 7, END, END, END, END], [BEGIN, 5, 5, 5, 5, 5]]
    config = replace(small().data, **STRATEGIES["explanation"])
    assert write(config, Scripted(rows), batch, (BEGIN, END)) == [
        {"answer": (7, 8), "rationale": (9,)},
        {"answer": (7,), "rationale": ()},
        {"answer": (5, 5, 5, 5, 5)},
    ]
    config = replace(config, **STRATEGIES["reasoning"])
    assert write(config, Scripted(rows[:1]), batch, (BEGIN, END)) == [{"rationale": (7, 8), "answer": (9,)}]


def test_the_second_stage_reads_what_the_first_wrote_as_the_loader_shows_it(split):
    config = replace(small().data, **STRATEGIES["two-stage"])
    plain = replace(config, target=("answer", "rationale"), then=())
    asked = next(iter(plain.loader(split, batch_size=5, shuffle=False, device="cpu", threads=1)))
    read = replace(plain, text=("question", "rationale"), target=("answer",))
    shown = next(iter(read.loader(split, batch_size=5, shuffle=False, device="cpu", threads=1)))
    reasons = [[list_true_texts(asked.target, i)["rationale"]] for i in range(5)]
    rows = append_texts(asked.text, reasons, END)
    assert rows.tokens.equal(shown.text.tokens)
    assert rows.valid.equal(shown.text.valid)
    longest = max(len(one) for (one,) in reasons)
    first = [[BEGIN, *one, *[END] * (longest - len(one) + 1)] for (one,) in reasons]
    model = Scripted(first, [[BEGIN, 6, END]] * 5)
    made = write(config, model, asked, find_special_ids(Manifest.load(split)))
    assert made == [{"rationale": one, "answer": (6,)} for (one,) in reasons]
    assert [texts for _, texts in model.asked] == [1, 1]
    assert model.asked[1][0].tokens.equal(shown.text.tokens)


def test_answers_are_counted_by_kind_beside_those_without_looking():
    def asked(kind, words, answer, made=None, reasons=(1, 2), written_reasons=(1, 2)):
        true = {"answer": (answer,), "rationale": reasons}
        return Asked(kind=kind, words=(words,), true=true, made={"answer": (made,), "rationale": written_reasons})

    known = [asked("a", 1, 5), asked("a", 1, 6), asked("a", 1, 6), asked("b", 2, 7), asked("a", 3, 5), asked("a", 3, 5)]
    found = measure_texts(
        [
            asked("a", 1, 6, 6),
            asked("a", 3, 5, 9, written_reasons=(2, 9)),
            asked("b", 2, 7, 7),
            asked("b", 8, 6, 6, written_reasons=()),
        ],
        known,
    )
    assert found.right == {"all": 0.75, "a": 0.5, "b": 1.0}
    assert found.frequent == {"all": 0.5, "a": 0.5, "b": 0.5}
    assert found.unseen == {"all": 0.75, "a": 1.0, "b": 0.5}
    assert found.questions == {"all": 4, "a": 2, "b": 2}
    assert found.rationales == 0.5
    assert found.tokens == (1 + 0.5 + 1 + 0) / 4
    with pytest.raises(ValueError, match="the split has no questions; use a split with at least one"):
        measure_texts([], known)


@pytest.mark.parametrize("strategy", ["answer", "two-stage"])
def test_a_report_has_a_figure_and_what_is_written(split, strategy):
    roles = STRATEGIES[strategy]
    recipe = small(*(f"data.{name}={[*value]}".replace("'", '"') for name, value in roles.items()))
    found = evaluate_model(recipe, recipe.build().eval(), Manifest.load(split), 2)
    (section,) = make_sections(found.examples, MODALITIES["image-text"].figures(recipe.data, Manifest.load(split)), ())
    titles = [figure.title for figure in section.cards[0].figures]
    assert "The answer" in titles
    assert any(title.startswith("The answer written by the model") for title in titles)


def test_sizes_and_data_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="set a target in the data"):
        small("data.target=[]")
    with pytest.raises(ValueError, match=r"data\.target_length=64 is more than model\.longest=16"):
        small("data.target_length=64")
    with pytest.raises(ValueError, match="longest must be an integer of at least 4, got 3"):
        replace(small().model, longest=3)
    with pytest.raises(ValueError, match="multiple of 4 and of heads"):
        RationaleWriterConfig(width=30)
