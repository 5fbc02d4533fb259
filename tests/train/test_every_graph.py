"""Every recipe under the defaults of a CUDA device, traced on a CPU: what crashes before a kernel is found."""

import json
from contextlib import closing
from itertools import islice

import pytest
import torch

from maskstream.train import RECIPES, read_metrics
from maskstream.train.core.model import Model
from maskstream.train.recipes import chosen_recipe

from ..pipelines.every_modality import write_split
from .as_on_a_card import STEPS, as_on_a_card
from .ranks import ended
from .test_every_recipe import CUTS

SCRIPT = "tests/train/as_on_a_card.py"
DROPPING = ("bert-base", "cropmae-small", "mage-base", "pointmae-small", "retromae-base")
"""Recipes that drop: values and attention, of documents, of a decoder alone, and paths of samples."""
NO_GRAPH = {"roar-lstm-base", "roar-lstm-tiny"}
"""Recipes whose step is no graph: torch traces no LSTM."""
RANKED = ("mae-tiny", "bert-tiny", "diffmavil-tiny", "avsiam-tiny", "mpm-tiny", "mosaicbert-base")
"""Recipes of ranks: pictures, texts of all lengths, a loss over ranks, parts of a batch and of a model, ALiBi."""
WAYS = (("no", False), ("auto", False), ("auto", True))
"""What is compiled, and whether blocks are computed again, which is tried with the first two recipes."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # of torch's own tracing
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated"),  # the same
]


def cut(name):
    return chosen_recipe(name, CUTS[name.partition("-")[0]])


def list_different():
    """The recipes whose models differ when their sizes are cut: tiny ones, and those of base with other branches."""
    found = {}
    for name in sorted(RECIPES, key=lambda name: ("tiny" not in name, name)):
        recipe = cut(name)
        model = {field: value for field, value in recipe.to_dict()["model"].items() if field != "dropout"}
        found.setdefault((recipe.data.modality, json.dumps(model, sort_keys=True)), name)
    return sorted({*found.values(), *DROPPING})


@pytest.mark.parametrize("name", list_different())
def test_a_step_is_one_graph_where_the_model_says_so(name, split_of):
    recipe = cut(name)
    model: Model = recipe.build()
    with closing(recipe.loader(split_of(recipe.data.modality), steps=8, device="cpu", threads=1)) as loader:
        batches = list(islice(loader.repeat(), 2))
    assert model.whole_graph == (name not in NO_GRAPH)

    def measure(batch):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch).loss()

    expected = [measure(batch).item() for batch in batches]
    with as_on_a_card():
        model.compile(fullgraph=True)
        if not model.whole_graph:
            with pytest.raises(torch._dynamo.exc.TorchDynamoException):
                measure(batches[0])
            return
        for batch, loss in zip(batches, expected, strict=True):
            made = measure(batch)
            made.backward()
            assert made.item() == pytest.approx(loss, rel=0.03)


class TracedError(Exception):
    """A graph is there, and would be run."""


@pytest.mark.parametrize("name", ["bert-tiny", "mosaicbert-tiny", "retromae-tiny"])
def test_the_graph_of_texts_has_flash_attention(name, split_of):
    recipe, codes = cut(name), []
    with closing(recipe.loader(split_of("text"), steps=8, device="cpu", threads=1)) as loader:
        batch = next(loader.repeat())

    def backend(graph, inputs):
        codes.append(graph.code)
        return run

    def run(*inputs):
        raise TracedError

    model = recipe.build()
    with as_on_a_card(backend, flash=True), torch.autocast("cpu", torch.bfloat16):
        model.compile(fullgraph=True)
        with pytest.raises(TracedError):
            model(batch)
    assert [code.count("_varlen_attn") > 0 for code in codes] == [True]


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_ranks_that_compile_by_default_train_as_those_that_do_not(parallel, tmp_path):
    splits = {
        modality: write_split(modality, tmp_path / modality) for modality in {cut(n).data.modality for n in RANKED}
    }
    jobs = [
        (f"{name} {how} {again}", cut(name).to_dict(), str(splits[cut(name).data.modality]), options)
        for name in RANKED
        for how, again in WAYS
        for options in [{"compile": how, "checkpoint_blocks": again, "parallel": parallel}]
        if not again or name in RANKED[:2]
    ]
    codes, output = ended([SCRIPT, tmp_path / "out", json.dumps(jobs)], 2, 600)
    assert codes == [0, 0], output
    for name in RANKED:
        runs = [tmp_path / "out" / f"{name} {how} {again}" for how, again in WAYS if not again or name in RANKED[:2]]
        plain, *compiled = (
            [(step.loss, step.grad_norm) for step in read_metrics(run / "metrics.jsonl")] for run in runs
        )
        assert len(plain) == STEPS
        for made in compiled:
            assert made == [pytest.approx(one, rel=2e-4) for one in plain], name
