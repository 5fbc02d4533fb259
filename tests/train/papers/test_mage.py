"""MAGE: what the encoder and the decoder see, the loss, views, and features."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from maskstream.pipelines.masks import DropAndMask, Padded, Random, Uniform
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import ImageData, compute_image_grid
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.papers.mage.model import GenerativeEncoderConfig

SIZES = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
GRIDS = {"image": compute_image_grid(16, 4)}
CONFIG = GenerativeEncoderConfig(
    vq=None, quantiser=SIZES, width=32, depth=2, heads=2, decoder_depth=2, decoder_heads=2, smoothing=0.0
)


def exact(config):
    """A model in float64, but for its quantiser."""
    model = config.build(GRIDS, seed=1).double().eval()
    model.vq.float()
    return model


def batch_of(mask, n=4):
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8))
    drawn = mask.draw(GRIDS["image"], [np.random.default_rng(i) for i in range(n)])
    return ImageBatch(image=image, mask=drawn, label=torch.full((n,), -1), key=[""] * n)


@pytest.fixture
def model():
    return exact(CONFIG)


@pytest.fixture
def batch():
    return batch_of(DropAndMask(ratio=0.75))


def test_the_loss_is_the_cross_entropy_of_the_hidden_ids(model, batch):
    ids = model.ids(batch)
    hidden = batch.mask.masked | batch.mask.mask_token
    assert hidden.sum(dim=1).tolist() == [12] * 4
    logits = model.predicted(model.encode(ids, batch.mask.visible, batch.mask.mask_token), batch.mask)
    expected = F.cross_entropy(logits.flatten(0, 1), ids[hidden])
    assert model(batch).loss().item() == pytest.approx(expected.item(), rel=1e-9)
    smooth = exact(replace(CONFIG, smoothing=0.1))
    mixed = 0.9 * expected - 0.1 * logits.log_softmax(dim=2).mean()
    assert smooth(batch).loss().item() == pytest.approx(mixed.item(), rel=1e-9)


def test_predictions_depend_on_no_id_that_is_hidden(model, batch):
    ids = model.ids(batch)
    others = torch.where(batch.mask.masked | batch.mask.mask_token, (ids + 7) % 32, ids)
    made = [
        model.predicted(model.encode(x, batch.mask.visible, batch.mask.mask_token), batch.mask) for x in (ids, others)
    ]
    assert torch.equal(*made)
    seen = torch.where(batch.mask.masked | batch.mask.mask_token, ids, (ids + 7) % 32)
    changed = model.predicted(model.encode(seen, batch.mask.visible, batch.mask.mask_token), batch.mask)
    assert not torch.allclose(made[0], changed)


def test_a_detached_table_learns_as_the_input_of_the_encoder_alone(batch):
    """The rows of ids that no encoder reads get gradients from the logits, unless these are detached."""
    learnt = []
    for detached in (False, True):
        model = exact(replace(CONFIG, detached=detached))
        assert model(batch).loss().item() == exact(CONFIG)(batch).loss().item()
        model(batch).loss().backward()
        ids, mask = model.ids(batch), batch.mask
        seen = ids[~(mask.masked | mask.mask_token)].unique()
        unseen = torch.ones(32, dtype=torch.bool).index_fill(0, seen, False)
        assert unseen.any()
        table = model.embed.ids.weight.grad[:32]
        assert (table[seen] != 0).any()
        learnt.append(bool((table[unseen] != 0).any()))
    assert learnt == [True, False]


def test_without_dropped_cells_both_ways_to_predict_are_one(model):
    batch = batch_of(DropAndMask(ratio=0.75, drop=0.0))
    ids = model.ids(batch)
    one = model.predicted(model.encode(ids, batch.mask.visible, batch.mask.mask_token), batch.mask)
    assert torch.allclose(one, model.predict(ids, batch.mask.mask_token, 12), atol=1e-12)


@pytest.mark.parametrize("positions", ["learned", "grid"])
def test_a_cell_is_told_from_another_by_its_position(positions, batch):
    model = exact(replace(CONFIG, positions=positions))
    ids, hidden = torch.zeros(1, 16, dtype=torch.int64), torch.ones(1, 16, dtype=torch.bool)
    logits = model.predict(ids, hidden, 16)[0]
    assert (logits[0] - logits[1:]).abs().amax(dim=1).min() > 1e-6
    with pytest.raises(ValueError, match="positions must be 'learned' or 'grid', got 'line'"):
        replace(CONFIG, positions="line")


def test_reconstructions_keep_what_is_visible(model, batch):
    made = model.reconstructed(batch)
    assert made.image.shape == batch.image.shape
    ids = model.ids(batch)
    logits = model.predicted(model.encode(ids, batch.mask.visible, batch.mask.mask_token), batch.mask)
    assert torch.equal(made.image, model.drawn(ids.scatter(1, batch.mask.target, logits.argmax(dim=2))))


def test_features_are_those_of_all_cells(model, batch):
    tokens = model.token_features(batch)
    assert tokens.shape == (4, 16, 32)
    assert torch.allclose(model.features(batch), tokens.mean(dim=1))
    assert model.token_inputs(batch).shape == (4, 16, 2)


def test_two_views_are_told_from_those_of_others(batch):
    model = replace(CONFIG, contrast=0.1).build(GRIDS, seed=1)
    losses = model(batch)
    assert set(losses.parts) == {"hidden ids", "views"}
    assert losses.parts["views"].share == 0.1
    same = replace(
        batch, image=batch.image[:1].expand(4, -1, -1, -1), mask=batch_of(DropAndMask(ratio=0.75, drop=0.0)).mask
    )
    assert 0.5 < losses.means()["views"].item() < 2
    losses.loss().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model(same).loss().isfinite()
    with pytest.raises(ValueError, match=r"data\.views=1; use 2"):
        replace(CONFIG, contrast=0.1).check(ImageData(size=16, patch=4))


def test_masks_that_do_not_fit_are_refused(model, batch):
    with pytest.raises(ValueError, match="DropAndMask"):
        model(replace(batch, mask=None))
    with pytest.raises(ValueError, match="equal counts"):
        model(batch_of(Padded(mask=Random(ratio=Uniform(low=0.5, high=0.9)))))
    with pytest.raises(ValueError, match="smoothing"):
        replace(CONFIG, smoothing=1.0)
