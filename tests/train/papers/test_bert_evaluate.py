import io
import tarfile

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import Tokens
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.shards.format.manifest import Manifest
from maskstream.train.evaluate.evaluation import trained_on
from maskstream.train.evaluate.hidden_ids import NGrams
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.papers.bert.evaluate import evaluate, measure_tokens
from maskstream.train.papers.bert.recipe import replaced

from ...pipelines.every_modality import write_split
from ..text_batches import VOCABULARY, made_up


def built(grid, vocabulary):
    return TokenModelConfig(vocabulary=vocabulary, width=16, depth=1, heads=2).build({"text": grid}, seed=0).eval()


def test_the_loss_is_that_of_training_and_the_baselines_are_those_of_counts():
    some = [made_up(), made_up(seed=1)]
    model = built(some[0].mask.grid, VOCABULARY)
    with torch.no_grad():
        parts = [model(batch).parts["masked tokens"] for batch in some]
    loss, _ = measure_tokens(model, some, NGrams.of(some, VOCABULARY))
    assert loss.value == pytest.approx(float(sum(p.total for p in parts) / sum(p.weight for p in parts)), abs=1e-5)
    assert loss.count == sum(int(batch.mask.masked.sum()) for batch in some)
    beside, alone = loss.baselines.values()
    assert beside < alone < 4.5
    with torch.no_grad():
        model.head.bias[7] = 1e4
    assert measure_tokens(model, some, NGrams.of(some, VOCABULARY))[1].value < 0.2
    with pytest.raises(ValueError, match="got none"):
        measure_tokens(model, [], NGrams.of(some, VOCABULARY))


def test_a_split_is_measured_with_the_counts_of_the_split_beside_it(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("train", "val"):
        write_split("text", tmp_path / name).rename(tmp_path / "data" / name)
    config = TextData(length=32, packing="row", mask=replaced(Tokens(ratio=0.3)))
    model = built(config.grids["text"], 2000)
    found = evaluate(model, config, Manifest.load(tmp_path / "data/val"), 1)
    assert 0 < found.loss.value < 7
    assert found.notes["perplexity"] == pytest.approx(np.exp(found.scores[0].value))
    assert str(trained_on(Manifest.load(tmp_path / "data/val"))) == str(tmp_path / "data/train")
    (tmp_path / "data/train").rename(tmp_path / "data/other")
    assert str(trained_on(Manifest.load(tmp_path / "data/val"))) == str(tmp_path / "data/val")
    assert evaluate(model, config, Manifest.load(tmp_path / "data/val"), 1).scores == found.scores


def test_all_tokens_of_the_training_split_are_counted_also_those_that_a_row_cuts_off(tmp_path, monkeypatch):
    split = write_split("text", tmp_path / "text")
    tokens = 0
    for path in split.glob("*.tar"):
        with tarfile.open(path) as tar:
            tokens += sum(
                len(np.load(io.BytesIO(tar.extractfile(one).read())))
                for one in tar.getmembers()
                if one.name.endswith(".tokens.npy")
            )
    made = []
    of = NGrams.of

    def noted(batches, vocabulary):
        made.append(of(batches, vocabulary))
        return made[-1]

    monkeypatch.setattr(NGrams, "of", noted)
    config = TextData(length=8, packing="row", mask=replaced(Tokens(ratio=0.3)))
    evaluate(built(config.grids["text"], 2000), config, Manifest.load(split), 1)
    (counts,) = made
    special = (counts.single - 1)[:5].sum()
    assert counts.single.sum() - 2000 - special == pytest.approx(tokens)
