"""The autoencoder of packed rows: a row is its samples, whatever else is in the row, and each counts as the config
says.
"""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskstream.pipelines import masks
from maskstream.pipelines.augment import Native
from maskstream.pipelines.modalities.packed.batch import PackedBatch, PackedMask
from maskstream.pipelines.modalities.packed.data import PackedData
from maskstream.train import named_recipe
from maskstream.train.papers.navit.evaluate import find_nearest_visible
from maskstream.train.papers.navit.model import NativeAutoencoderConfig, rotations

PATCH, TUBELET = 4, 2
SIZES = {"width": 24, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
GRIDS = ((1, 3, 4), (3, 2, 3), (1, 1, 7), (2, 4, 2), (1, 5, 5))
"""Pictures and clips of unlike sizes."""


def packed(grids, seed=0, of=None):
    """A batch of one row of samples of these grids; a sample is decided by its place `of` among all."""
    tokens, place, hidden = [], [], []
    for number, grid in zip(of or range(len(grids)), grids, strict=True):
        rng = torch.Generator().manual_seed(1000 * seed + number)
        n = grid[0] * grid[1] * grid[2]
        tokens.append(torch.randint(256, (n, TUBELET * PATCH * PATCH * 3), generator=rng, dtype=torch.uint8))
        place.append(torch.tensor([*itertools.product(*map(range, grid))], dtype=torch.int32))
        own = torch.zeros(n, dtype=torch.bool)
        own[torch.randperm(n, generator=rng)[: max(n * 2 // 3, 1)]] = True
        hidden.append(own)
    masked = torch.cat(hidden)

    def ends(counts):
        return F.pad(torch.tensor(counts).cumsum(0), (1, 0)).int()

    seen, wanted = [int((~own).sum()) for own in hidden], [int(own.sum()) for own in hidden]
    return PackedBatch(
        tokens=torch.cat(tokens),
        kind=torch.zeros(len(grids), dtype=torch.int64),
        cu_seqlens=ends([len(one) for one in tokens]),
        cu_rows=torch.tensor([0, len(grids)], dtype=torch.int32),
        grid_thw=torch.tensor(grids),
        place=torch.cat(place),
        mask=PackedMask(
            masked=masked,
            visible=(~masked).nonzero()[:, 0],
            target=masked.nonzero()[:, 0],
            weight=torch.ones(int(masked.sum())),
            cu_visible=ends(seen),
            cu_target=ends(wanted),
            longest=(max(seen), max(wanted)),
        ),
        patch=PATCH,
        tubelet=TUBELET,
        row_tokens=64,
        longest=max(map(len, tokens)),
        key=[str(number) for number in of or range(len(grids))],
        label=torch.zeros(len(grids), dtype=torch.int64),
    )


def model_of(**settings):
    return NativeAutoencoderConfig(patch=PATCH, tubelet=TUBELET, **SIZES, **settings).build({}, seed=1)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("equal", ["tokens", "samples"])
def test_loss_and_gradients_of_a_row_are_those_of_its_samples_one_by_one(equal):
    model = model_of(equal=equal).double()
    together = model.loss(packed(GRIDS))
    parts = [model.loss(packed([grid], of=[i])).parts["reconstruction"] for i, grid in enumerate(GRIDS)]
    row = together.parts["reconstruction"]
    counts = [int(part.weight) for part in parts]
    assert counts == ([1] * len(GRIDS) if equal == "samples" else [grid_size(g) * 2 // 3 for g in GRIDS])
    alone = sum(part.total for part in parts) / sum(part.weight for part in parts)
    assert abs(together.loss().item() - alone.item()) <= 1e-12
    of_row, of_samples = gradients(model, row.mean()), gradients(model, alone)
    assert float((of_row - of_samples).abs().max()) <= 1e-12
    assert float(of_row.abs().max()) > 1e-3


def grid_size(grid):
    return grid[0] * grid[1] * grid[2]


def test_a_sample_of_a_row_sees_no_other():
    model, one, other = model_of(), packed(GRIDS), packed(GRIDS)
    own = slice(*other.cu_seqlens[1:3].tolist())
    changed = replace(other, tokens=other.tokens.clone())
    changed.tokens[own] = 255 - changed.tokens[own]
    with torch.no_grad():
        before, after = model.features(one), model.features(changed)
        predicted, other_predicted = model.predict(one), model.predict(changed)
    moved = (before - after).abs().amax(dim=1) > 0
    assert moved.tolist() == [False, True, False, False, False]
    wanted = slice(*one.mask.cu_target[1:3].tolist())
    same = (predicted == other_predicted).all(dim=1)
    assert not same[wanted].any()
    assert same[: wanted.start].all()
    assert same[wanted.stop :].all()


def test_the_way_of_a_device_is_that_of_a_cpu(monkeypatch):
    """A CUDA device pads samples where it has no kernel for them; the last block computes all tokens."""
    model, batch = model_of().double(), packed(GRIDS)
    own = model.predict(batch)
    from maskstream.train.nn.token_layers import Documents

    def padded(self, q, k, v, asking=None, dropout=0.0):
        if asking is not None:
            whole = torch.zeros(len(self.places), *q.shape[1:], dtype=q.dtype).index_copy(0, asking.index, q)
            return kept(self, whole, k, v)[asking.index]
        return kept(self, q, k, v)

    def kept(self, q, k, v):
        from maskstream.train.nn.token_layers import rotate

        return self.padded(rotate(q, *self.turns), rotate(k, *self.turns), v)

    monkeypatch.setattr(Documents, "attention", padded)
    torch.testing.assert_close(model.predict(batch), own, rtol=0, atol=1e-12)


def test_places_turn_by_time_row_and_column_and_only_distances_count():
    place = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    cosine, sine = rotations(place, 32)
    assert cosine.shape == (4, 1, 32)
    angle = torch.atan2(sine, cosine)[:, 0]
    rates = 10000.0 ** (-torch.arange(5) / 5)
    for axis in range(3):
        expected = torch.zeros(16)
        expected[5 * axis : 5 * axis + 5] = rates
        torch.testing.assert_close(angle[axis + 1], expected.repeat(2))
    model, near = model_of().double(), packed(GRIDS)
    far = replace(near, place=near.place + torch.tensor([3, 5, 9], dtype=torch.int32))
    torch.testing.assert_close(model.encode(far), model.encode(near), rtol=1e-5, atol=1e-5)
    turned = replace(near, place=near.place[:, [0, 2, 1]])
    assert float((model.encode(turned) - model.encode(near)).detach().abs().max()) > 1e-3


def test_samples_that_pad_a_validation_do_not_count():
    model, batch = model_of(equal="samples"), packed(GRIDS)
    row = model.loss(replace(batch, cu_rows=torch.tensor([0, 2, 5])).weighted(torch.tensor([1.0, 0.0])))
    own = model.loss(packed(GRIDS[:2]))
    assert float(row.parts["reconstruction"].weight) == pytest.approx(2)
    assert row.loss().item() == pytest.approx(own.loss().item(), rel=1e-5)


def test_a_prediction_of_the_truth_reconstructs_the_batch(monkeypatch):
    model, batch = model_of(), packed(GRIDS)
    monkeypatch.setattr(model, "predict", lambda one: model.targets(one, one.mask.target))
    assert model.loss(batch).loss().item() < 1e-10
    assert (model.reconstructed(batch).tokens.int() - batch.tokens.int()).abs().max() <= 1


def test_the_nearest_visible_token_is_of_the_same_sample():
    batch = packed(GRIDS)
    near = find_nearest_visible(batch)
    own = torch.bucketize(near, batch.cu_seqlens[1:].long(), right=True)
    assert (own == torch.bucketize(batch.mask.target, batch.cu_seqlens[1:].long(), right=True)).all()
    assert not batch.mask.masked[near].any()
    for target, found, sample in zip(batch.mask.target.tolist(), near.tolist(), own.tolist(), strict=True):
        first, last = batch.cu_seqlens[sample : sample + 2].tolist()
        seen = [t for t in range(first, last) if not batch.mask.masked[t]]
        apart = [(batch.place[t] - batch.place[target]).square().sum().item() for t in seen]
        assert found == seen[apart.index(min(apart))]


def test_what_does_not_fit_is_named():
    recipe = named_recipe("native-tiny")
    with pytest.raises(ValueError, match=r"model\.patch=8 must equal data\.native\.patch=16"):
        replace(recipe, data=PackedData(native=Native(patch=16, tubelet=2), mask=masks.Random(ratio=0.75)))
    with pytest.raises(ValueError, match="even number of channels, 6 or more"):
        NativeAutoencoderConfig(width=16, heads=4)
    with pytest.raises(ValueError, match="equal must be 'tokens' or 'samples'"):
        NativeAutoencoderConfig(equal="pictures")
    with pytest.raises(ValueError, match="reads packed rows, got ImageData"):
        replace(recipe, data=named_recipe("mae-tiny").data)
    model, batch = model_of(), packed(GRIDS)
    with pytest.raises(ValueError, match="no masks"):
        model.loss(replace(batch, mask=None))
    with pytest.raises(ValueError, match="2 x 8 x 8 pixels, but the model takes 2 x 4 x 4"):
        model.loss(replace(batch, patch=8))
    with pytest.raises(ValueError, match="the batch has audio"):
        model.loss(replace(batch, tokens=batch.tokens[:-1]))
