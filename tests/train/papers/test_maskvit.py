"""MaskViT: windows, the loss, what predictions depend on, and what does not fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskstream.pipelines import VideoClip
from maskstream.pipelines.masks import Context, Padded, PerFrame, Uniform
from maskstream.pipelines.modalities.targets import TARGETS
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.modalities.video.data import VideoData
from maskstream.train import named_recipe
from maskstream.train.nn.grid import from_windows, to_windows
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.nn.transformer import TransformerBlock
from maskstream.train.papers.maskvit.model import FrameIdsConfig

MASK = Padded(mask=Context(mask=PerFrame(ratio=Uniform(low=0.5, high=1.0))))
DATA = VideoData(clip=VideoClip(frames=3, stride=1, size=16), tubelet=1, patch=4, mask=MASK)
SIZES = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
CONFIG = FrameIdsConfig(vq=None, quantiser=SIZES, width=32, depth=1, heads=2, window=2)


def exact(config=CONFIG):
    """A model in float64, but for its quantiser."""
    model = config.build(DATA.grids, seed=1).double().eval()
    model.vq.float()
    return model


def clips(n=4, mask=MASK):
    rng = np.random.default_rng(0)
    video = torch.from_numpy(rng.integers(0, 256, (n, 3, 16, 16, 3), dtype=np.uint8))
    drawn = None if mask is None else mask.draw(DATA.grids["video"], [np.random.default_rng(i) for i in range(n)])
    return VideoBatch(
        video=video,
        mask=drawn,
        flow=None,
        pts_s=torch.zeros(n, 3, dtype=torch.float64),
        label=torch.full((n,), -1),
        key=[""] * n,
    )


@pytest.mark.parametrize(
    ("grid", "window"), [((3, 4, 6), (1, 4, 6)), ((3, 4, 6), (3, 2, 3)), ((8, 4), (4, 2)), ((4,), (2,))]
)
def test_a_block_on_windows_is_one_on_all_tokens_that_attend_to_those_of_their_window(grid, window):
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 2).double()
    x = torch.randn(2, int(np.prod(grid)), 8, dtype=torch.float64)
    places = np.stack(np.unravel_index(np.arange(x.shape[1]), grid), axis=1) // window
    same = torch.from_numpy((places[:, None] == places[None]).all(axis=2))
    made = from_windows(block(to_windows(x, grid, window)), grid, window)
    assert torch.allclose(made, block(x, same), atol=1e-12)
    assert torch.equal(from_windows(to_windows(x, grid, window), grid, window), x)


def test_the_loss_is_the_cross_entropy_of_the_hidden_ids():
    model, batch = exact(), clips()
    counts = batch.mask.masked.sum(dim=1)
    assert len(set(counts.tolist())) > 1
    assert not batch.mask.masked[:, :16].any()
    ids, hidden = model.ids(batch), batch.mask.masked
    everywhere = torch.arange(48).expand(4, -1)
    logits = model.predicted(ids, hidden, everywhere)
    expected = F.cross_entropy(logits[hidden], ids[hidden])
    assert model(batch).loss().item() == pytest.approx(expected.item(), rel=1e-9)


def test_ids_that_lie_in_shards_give_the_loss_of_those_that_the_quantiser_makes():
    model, batch = exact(), clips()
    ids = model.vq.ids(batch.video, {})
    stored = replace(batch, fields={TARGETS: ids.flatten(1).to(torch.int32)})
    with torch.no_grad():
        made = model.loss(batch).loss()
        assert model.loss(stored).loss() == made
        assert model.loss(replace(stored, video=torch.zeros_like(batch.video))).loss() == made
        assert model.loss(replace(batch, fields={TARGETS: 0 * ids.flatten(1)})).loss() != made


def test_predictions_depend_on_visible_ids_alone():
    model, batch = exact(), clips()
    ids, hidden = model.ids(batch), batch.mask.masked
    everywhere = torch.arange(48).expand(4, -1)
    before = model.predicted(ids, hidden, everywhere)
    assert torch.equal(model.predicted(torch.where(hidden, (ids + 1) % 32, ids), hidden, everywhere), before)
    other = model.predicted(torch.where(hidden, ids, (ids + 1) % 32), hidden, everywhere)
    assert (other - before)[hidden].abs().amax(dim=1).min() > 1e-6


def test_the_first_block_sees_a_frame_and_the_second_a_column():
    model, ids = exact(), torch.zeros(1, 48, dtype=torch.int64)
    nothing, everywhere = torch.zeros(1, 48, dtype=torch.bool), torch.arange(48)[None]
    changed = ids.clone()
    changed[0, 16] = 5  # the first cell of the second frame

    def reached():
        apart = (model.predicted(changed, nothing, everywhere) - model.predicted(ids, nothing, everywhere)).abs()
        return (apart.amax(dim=2) > 1e-9).view(3, 4, 4)

    assert reached().all()
    blocks = list(model.blocks)
    model.blocks = nn.ModuleList(blocks[:1])
    assert torch.equal(reached().flatten(1).all(dim=1), torch.tensor([False, True, False]))
    assert int(reached().sum()) == 16
    model.blocks, model.windows = nn.ModuleList(blocks[1:]), model.windows[::-1]
    assert reached()[:, :2, :2].all()
    assert int(reached().sum()) == 12


def test_the_logits_for_decoding_are_those_of_the_hidden_cells_in_their_order():
    model, batch = exact(), clips()
    ids, hidden = model.ids(batch), model.future(4)
    assert hidden.view(4, 3, 16).all(dim=2).tolist() == [[False, True, True]] * 4
    whole = model.predicted(ids, hidden, torch.arange(48).expand(4, -1))
    assert torch.allclose(model.predict(ids, hidden, 32), whole[:, 16:], atol=1e-12)


def test_visible_cells_are_drawn_from_their_ids():
    model, batch = exact(), clips()
    made = model.reconstructed(batch).video
    assert made.shape == batch.video.shape
    drawn = model.drawn(model.ids(batch))
    assert torch.equal(made[:, 0], drawn[:, 0])
    assert not torch.equal(made[:, 1:], drawn[:, 1:])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"multiples of the window of 3 cells, got 3 frames of 4 x 4 cells"):
        replace(CONFIG, window=3).build(DATA.grids)
    with pytest.raises(ValueError, match="more frames than the context of 3"):
        replace(CONFIG, context=3).build(DATA.grids)
    with pytest.raises(ValueError, match=r"model\.context=2 and mask\.frames=1 must be the same number"):
        replace(CONFIG, context=2).check(DATA)
    with pytest.raises(ValueError, match="window must be an integer of at least 1, got 0"):
        replace(CONFIG, window=0)
    with pytest.raises(ValueError, match="the batch has no mask"):
        exact().loss(clips(mask=None))
    recipe = named_recipe("maskvit-tiny")
    with pytest.raises(ValueError, match=r"set data\.patch=8"):
        recipe.model.build(replace(recipe.data, patch=16).grids)


def test_features_are_those_of_all_cells_without_a_mask():
    model, batch = CONFIG.build(DATA.grids, seed=1).eval(), clips(mask=None)
    ids, tokens = model.ids(batch), model.token_features(batch)
    assert tokens.shape == (4, 48, 32)
    assert torch.allclose(model.features(batch), tokens.mean(dim=1))
    unseen = model.norm(model.encode(torch.full_like(ids, model.blank)))
    assert not torch.allclose(tokens, unseen, atol=1e-2)
    read = model.token_inputs(batch)  # a latent per id
    assert read.shape == (4, 48, 2)
    assert len(torch.unique(torch.cat((read, ids[:, :, None]), dim=2).flatten(0, 1), dim=0)) == len(torch.unique(ids))
