"""The bound of a masked diffusion against all orders of drawing, its n-grams against loops, and its sampler."""

from dataclasses import replace
from itertools import pairwise, permutations, product
from math import log

import numpy as np
import pytest
import torch

from maskstream.pipelines.masks import MaskedDiffusion, Padded, Replace, TokenGrid, Tokens
from maskstream.pipelines.modalities.text.data import TextData
from maskstream.train.papers.mdlm.evaluate import bounded, generate, measure_bound, measure_ngrams
from maskstream.train.papers.mdlm.model import DiffusionLanguageConfig
from maskstream.train.recipes import named_recipe

from ..text_batches import CLS, MASK_ID, VOCABULARY, made_up

SIZES = {"vocabulary": VOCABULARY, "width": 16, "depth": 2, "heads": 2, "norm": "pre", "positions": "rotary"}


def absorbed(mask, **settings):
    return Padded(mask=Replace(mask=mask, mask_id=MASK_ID, vocabulary=VOCABULARY, keep=0.0, random=0.0), **settings)


def built(batch, seed=0):
    model = DiffusionLanguageConfig(**SIZES).build({"text": batch.mask.grid}, seed=seed).double().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def one_text(hidden, ratio, length=8):
    """A text of [CLS], three tokens and [SEP], of which those in `hidden` are [MASK]."""
    batch = made_up(((5,),), length=length, mask=absorbed(Tokens(ratio=1.0)))
    masked = torch.zeros(1, length, dtype=torch.bool)
    masked[0, list(hidden)] = True
    mask = replace(
        batch.mask,
        masked=masked,
        target=torch.tensor([sorted(hidden)], dtype=torch.int64).reshape(1, -1),
        weight=torch.ones(1, len(hidden)),
        tokens=batch.tokens.long().masked_fill(masked, MASK_ID),
        ratio=torch.tensor([ratio]),
    )
    return replace(batch, mask=mask)


def test_the_mean_loss_over_times_and_masks_is_that_of_all_orders_of_drawing():
    places = (1, 2, 3)
    model = built(one_text(places, 1.0))

    def conditional(known, place):
        logits = model.logits(model.encode(one_text(set(places) - set(known), 1.0)))[place].detach()
        logits[MASK_ID] = -torch.inf
        return float(-logits.log_softmax(0)[one_text(places, 1.0).tokens[0, place]])

    orders = list(permutations(places))
    by_order = sum(conditional(order[:i], order[i]) for order in orders for i in range(3)) / len(orders) / 3

    nodes, weights = np.polynomial.legendre.leggauss(3)  # exact for the polynomials of t that these means are
    by_time = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        for chosen in product((False, True), repeat=3):
            hidden = [place for place, one in zip(places, chosen, strict=True) if one]
            if hidden:
                chance = t ** len(hidden) * (1 - t) ** (3 - len(hidden))
                by_time += weight * chance * model.loss(one_text(hidden, t)).loss().item()
    assert by_time == pytest.approx(by_order, rel=1e-6)


def test_the_measured_bound_is_the_mean_of_the_losses_of_its_draws():
    model = built(one_text((1, 2, 3), 1.0))
    texts = [one_text(hidden, len(hidden) / 3) for hidden in ((1,), (2, 3), (1, 2, 3))]
    bound = measure_bound(model, texts, 1)
    assert bound.value == pytest.approx(np.mean([model.loss(one).loss().item() for one in texts]), rel=1e-5)
    assert (bound.tokens, bound.draws, bound.error) == (9, 1, 0.0)


def test_what_stands_for_a_hidden_token_is_never_predicted_and_visible_tokens_stay():
    batch = made_up(mask=absorbed(MaskedDiffusion()))
    model = built(batch)
    with torch.no_grad():
        model.head.bias[MASK_ID] += 1e3
    made = model.reconstructed(batch)
    assert not (made.tokens == MASK_ID).any()
    assert torch.equal(made.tokens[~batch.mask.masked], batch.tokens[~batch.mask.masked])
    loss = model(batch).loss()
    loss.backward()
    assert 0 < loss.item() < 100
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_masks_that_do_not_fit_are_refused():
    recipe = named_recipe("mdlm-tiny")
    wrong = replace(recipe.data, mask=Padded(mask=Replace(mask=MaskedDiffusion())))
    with pytest.raises(ValueError, match=r"keep=0\.1 and random=0\.1"):
        recipe.model.check(wrong)
    batch = made_up()
    with pytest.raises(ValueError, match="MaskedDiffusion"):
        built(batch).loss(batch)
    recipe.model.check(bounded(TextData(length=16, packing="row")))


def test_counts_are_those_of_loops():
    counted, measured = made_up(seed=1), made_up(seed=2)
    found = measure_ngrams([counted], [measured], VOCABULARY)

    def documents(batch):
        edges = batch.unpadded.cu_seqlens.tolist()
        return [batch.unpadded.tokens[a:b].tolist() for a, b in pairwise(edges)]

    single, pairs, triples = {}, {}, {}
    for ids in documents(counted):
        for i in range(1, len(ids) - 1):
            single[ids[i]] = single.get(ids[i], 0) + 1
            pairs.setdefault(ids[i - 1], []).append(ids[i])
            triples.setdefault((ids[max(i - 2, 0)], ids[i - 1]), []).append(ids[i])
    total = sum(single.values()) + VOCABULARY
    losses = {}
    for near, far in product((1, 10, 100, 1000), repeat=2):
        for ids in documents(measured):
            for i in range(1, len(ids) - 1):
                alone = (single.get(ids[i], 0) + 1) / total
                after = pairs.get(ids[i - 1], [])
                one = (after.count(ids[i]) + near * alone) / (len(after) + near)
                both = triples.get((ids[max(i - 2, 0)], ids[i - 1]), [])
                two = (both.count(ids[i]) + far * one) / (len(both) + far)
                for name, chance in (("ids", alone), ("pairs", one), ("triples", two)):
                    losses.setdefault((name, near, far), []).append(-log(chance))
    means = {
        name: min(np.mean(v) for (n, *_), v in losses.items() if n == name) for name in ("ids", "pairs", "triples")
    }
    assert found["counts of ids"] == pytest.approx(means["ids"])
    assert found["counts of pairs, left to right"] == pytest.approx(means["pairs"])
    assert found["counts of triples, left to right"] == pytest.approx(means["triples"])


GRID = TokenGrid(axes=("token",), shape=(200,), patch=(1,))


@pytest.fixture
def drawing():
    model = DiffusionLanguageConfig(**SIZES).build({"text": GRID}, seed=0)
    ids = torch.full((4, 200), MASK_ID)
    ids[:, 0], ids[:, 7] = CLS, 30
    return model, ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_sampler_fills_in_blanks_alone_and_its_seed_decides(drawing, temperature):
    model, ids = drawing
    state = torch.random.get_rng_state()
    made = generate(model, ids, MASK_ID, steps=5, temperature=temperature, never=(0, 1, 2), seed=4)
    again = generate(model, ids, MASK_ID, steps=5, temperature=temperature, never=(0, 1, 2), seed=4)
    assert torch.equal(made, again)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(made[:, [0, 7]], ids[:, [0, 7]])
    assert (made[ids == MASK_ID] > MASK_ID).all()
    if temperature:
        assert not torch.equal(made, generate(model, ids, MASK_ID, steps=5, never=(0, 1, 2), seed=5))


def test_each_step_fills_in_its_share_of_what_was_blank_and_nothing_changes_again(drawing):
    model, ids = drawing
    seen, true = [], model.encode_ids

    def watched(ids, *rest):
        seen.append(ids.view(4, 200).clone())
        return true(ids, *rest)

    model.encode_ids = watched
    seen.append(generate(model, ids, MASK_ID, steps=4, seed=1))
    left = [int((one == MASK_ID).sum()) for one in seen]
    assert left[0] == 4 * 198
    assert left[-1] == 0
    assert len(left) == 5
    for number, expected in enumerate((0.75, 0.5, 0.25), 1):
        assert left[number] / left[0] == pytest.approx(expected, abs=4 * (0.25 / left[0]) ** 0.5)
    for before, after in pairwise(seen):
        filled = before != MASK_ID
        assert torch.equal(before[filled], after[filled])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"temperature": -1}])
def test_wrong_settings_of_the_sampler_are_refused(drawing, wrong):
    with pytest.raises(ValueError, match="got"):
        generate(*drawing, MASK_ID, **wrong)
