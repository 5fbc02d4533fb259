import math

import pytest
import torch

from maskstream.pipelines.masks import Padded, Tokens
from maskstream.train.nn.token_model import TokenModelConfig

from ..text_batches import VOCABULARY, made_up, replaced

SIZES = {"vocabulary": VOCABULARY, "width": 32, "depth": 2, "heads": 4}
KINDS = [
    {},
    {"positions": "rotary", "norm": "pre"},
    {"positions": "alibi", "gated": True},
    {"positions": "alibi", "heads": 2, "norm": "pre"},
]


def built(batch, **settings):
    return TokenModelConfig(**{**SIZES, **settings}).build({"text": batch.mask.grid}, seed=3).double()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_document_is_encoded_the_same_whatever_stands_beside_it(kind):
    packed, alone = made_up(((5, 9), (12,))), made_up(((5,), (9,), (12,)))
    ids = packed.unpadded.tokens
    model = built(packed, **kind)
    together = model.encode_ids(ids, packed.unpadded.positions, packed.unpadded.cu_seqlens, 12)
    apart = model.encode_ids(ids, alone.unpadded.positions, alone.unpadded.cu_seqlens, 12)
    assert torch.allclose(together, apart, atol=1e-12)
    one = model.encode_ids(ids[5:14], packed.unpadded.positions[5:14], torch.tensor([0, 9]), 9)
    assert torch.allclose(together[5:14], one, atol=1e-12)
    assert not torch.allclose(together[5:14], together[:9], rtol=0, atol=1e-2)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_chosen_tokens_alone_are_computed_as_among_all(kind):
    batch = made_up(((5, 9), (12,), (3, 4)))
    model = built(batch, **kind)
    chosen = torch.tensor([16, 2, 25, 2, 18])  # none of the second and of the fourth document
    model.encode(batch)[chosen].square().sum().backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    computed = []
    model.blocks[-1].mlp.register_forward_pre_hook(lambda _, inputs: computed.append(len(inputs[0])))
    found = model.encode(batch, chosen)
    found.square().sum().backward()
    assert computed == [4]
    assert torch.allclose(found, model.encode(batch)[chosen], atol=1e-12)
    for name, gradient in expected.items():
        assert torch.allclose(model.get_parameter(name).grad, gradient, atol=1e-10), name


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_order_of_tokens_matters(kind):
    batch = made_up(((6,),))
    model = built(batch, **kind)
    ids, places, edges = batch.unpadded.tokens, batch.unpadded.positions, batch.unpadded.cu_seqlens
    there = model.encode_ids(ids, places, edges, 6)
    back = model.encode_ids(ids[[0, 4, 3, 2, 1, 5]], places, edges, 6)
    assert not torch.allclose(there[0], back[0], rtol=0, atol=1e-6)


def test_places_count_from_the_start_of_each_document():
    batch = made_up(((6, 6),))
    ids = batch.unpadded.tokens.clone()
    ids[6:] = ids[:6]
    unpadded = batch.unpadded
    seen = built(batch).encode_ids(ids, unpadded.positions, unpadded.cu_seqlens, unpadded.longest)
    assert torch.allclose(seen[:6], seen[6:], atol=1e-12)


def test_only_hidden_tokens_count_and_the_loss_starts_at_that_of_a_guess():
    batch = made_up()
    model = built(batch)
    losses = model(batch)
    assert losses.weights().item() == batch.mask.masked.sum().item()
    assert losses.loss().item() == pytest.approx(math.log(VOCABULARY), abs=0.2)
    weightless = batch.weighted(torch.zeros(len(batch)))
    assert model(weightless).loss().item() == 0


def test_reconstruction_changes_hidden_tokens_alone():
    batch = made_up()
    model = built(batch)
    with torch.no_grad():
        model.head.bias[7] = 100
    made = model.reconstructed(batch)
    assert (made.tokens[batch.mask.masked] == 7).all()
    assert torch.equal(made.tokens[~batch.mask.masked], batch.tokens[~batch.mask.masked])
    assert torch.equal(made.unpadded.tokens, made.unpadded.gathered(made.tokens))


def test_scores_of_classes_follow_their_losses():
    batch = made_up()
    model = built(batch, classes=3, momentum=0.9).train()
    model(batch)
    of = batch.classes[batch.mask.masked].long()
    assert model.class_sums[1, :3].tolist() == [(of == n).sum().item() for n in range(3)]
    mean = model.class_sums[0, :3] / model.class_sums[1, :3]
    assert torch.allclose(model.update_scores(), 0.1 * mean)
    assert not model.class_sums.any()
    before = model.class_scores.clone()
    assert torch.equal(model.update_scores(), before)
    assert "class_scores" in model.state_dict()
    assert "class_scores" not in built(batch).state_dict()


def test_a_cpu_computes_in_float32():
    batch = made_up()
    model = TokenModelConfig(**SIZES).build({"text": batch.mask.grid}, seed=3)
    expected = model(batch).loss().item()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(batch).loss().item() == expected


def test_a_mask_without_ids_is_refused():
    batch = made_up(mask=Padded(mask=Tokens()))
    with pytest.raises(ValueError, match=r"masks\.Replace"):
        built(batch)(batch)


def test_a_document_longer_than_the_model_is_refused():
    long = made_up(((40,),), length=48)
    with pytest.raises(ValueError, match="up to 24 tokens, got one of 40"):
        built(made_up())(long)


def test_ids_beyond_the_vocabulary_are_refused():
    batch = made_up()
    with pytest.raises(ValueError, match=r"model\.vocabulary"):
        built(batch, vocabulary=20)(batch)


@pytest.mark.parametrize(
    "wrong", [{"width": 30}, {"positions": "absolute"}, {"norm": "no"}, {"positions": "rotary", "width": 36}]
)
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        TokenModelConfig(**{**SIZES, **wrong})


def test_every_parameter_learns():
    batch = made_up(mask=replaced(Tokens(ratio=0.4)))
    for kind in KINDS:
        model = built(batch, **kind)
        model(batch).loss().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
@torch.no_grad()
def test_the_last_block_is_one_graph_when_compiled():
    batch = made_up(((5, 9), (12,), (3, 4)))
    model = built(batch, positions="rotary", norm="pre")
    expected = model(batch).loss().item()
    model.blocks[-1].compile(fullgraph=True, backend="eager")
    assert model(batch).loss().item() == pytest.approx(expected)
