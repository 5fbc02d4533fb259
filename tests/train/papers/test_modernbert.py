"""A ModernBERT against that of transformers: loss, gradients and features, with copied random weights, in float64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from maskstream.pipelines.masks import TokenGrid
from maskstream.train.core.weights import load_matching_weights
from maskstream.train.papers.modernbert.model import ModernModelConfig
from maskstream.train.recipes import named_recipe

from ..text_batches import VOCABULARY, made_up

SIZES = {"vocabulary": VOCABULARY, "width": 32, "depth": 5, "heads": 4, "hidden": 40, "window": 8}
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "local_attention": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "attn_implementation": "sdpa",
}
ONE_EACH = ((12,), (48,), (5,), (20,))


def modeling():
    """Of transformers, which takes 3 s: imported by the process that runs a test, not by all that collect it."""
    return pytest.importorskip("transformers.models.modernbert.modeling_modernbert")


def rotated_in_double(q, k, cosine, sine, unsqueeze_dim=1):
    """What transformers does in float32."""
    half = modeling().rotate_half
    cosine, sine = cosine.unsqueeze(unsqueeze_dim), sine.unsqueeze(unsqueeze_dim)
    return q * cosine + half(q) * sine, k * cosine + half(k) * sine


def turned_in_double(self, x, position_ids, layer_type):
    """The cosines and sines, by the formula, of which transformers has float32 ones."""
    base = self.config.rope_parameters[layer_type]["rope_theta"]
    channels = self.config.hidden_size // self.config.num_attention_heads
    rates = 1.0 / base ** (torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = position_ids[..., None].double() * rates
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


@pytest.fixture
def theirs(monkeypatch):
    monkeypatch.setattr(modeling(), "apply_rotary_pos_emb", rotated_in_double)
    monkeypatch.setattr(modeling().ModernBertRotaryEmbedding, "forward", turned_in_double)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = modeling().ModernBertForMaskedLM(modeling().ModernBertConfig(**CONFIG)).double().eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def copied(theirs, length=64):
    grids = {"text": TokenGrid(axes=("token",), shape=(length,), patch=(1,))}
    ours = ModernModelConfig(**SIZES).build(grids).double()
    weights = ours.rename_weights(theirs.state_dict())
    assert weights.keys() == ours.state_dict().keys()
    ours.load_state_dict(weights)
    return ours


def test_loss_gradients_and_features_are_those_of_transformers(theirs):
    batch, ours = made_up(ONE_EACH, length=64), copied(theirs)
    labels = batch.tokens.long().masked_fill(~batch.mask.masked, -100)
    valid = batch.valid.long()
    logits = theirs(input_ids=batch.inputs, attention_mask=valid).logits  # whose own loss is computed in float32
    their_loss, loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()), ours(batch).loss()
    assert abs(loss.item() - their_loss.item()) <= 1e-9
    padded = theirs.model(batch.inputs, attention_mask=valid).last_hidden_state
    assert torch.allclose(ours.encode(batch), batch.unpadded.gathered(padded), rtol=0, atol=1e-9)

    their_loss.backward()
    loss.backward()
    expected = ours.rename_weights({name: one.grad for name, one in theirs.named_parameters()})
    got = dict(ours.named_parameters())
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        assert float((got[name].grad - gradient).norm()) <= 1e-9 * float(gradient.norm()) + 1e-15, name


def test_packed_documents_do_not_see_each_other(theirs):
    ours = copied(theirs)
    apart, packed = (made_up(lengths, length=64) for lengths in (((12,), (48,)), ((12, 48),)))
    assert torch.equal(apart.unpadded.tokens, packed.unpadded.tokens)
    one, other = (ours.encode(replace(batch, mask=None)) for batch in (apart, packed))
    assert torch.allclose(one, other, atol=1e-12)


def test_every_third_layer_is_global_and_turns_slower(theirs):
    places = torch.arange(20)
    documents = copied(theirs).documents(torch.tensor([0, 20], dtype=torch.int32), 20, places)
    assert [one.window for one in documents] == [None, 4, 4, None, 4]
    slowest = [float(one.turns[1][1, 0, 3].asin()) for one in documents]
    assert slowest == pytest.approx([base**-0.75 for base in (160_000, 10_000, 10_000, 160_000, 10_000)])


def test_a_run_begins_with_the_weights_of_a_folder_of_transformers(theirs, tmp_path):
    theirs.float().save_pretrained(tmp_path)
    grids = {"text": TokenGrid(axes=("token",), shape=(64,), patch=(1,))}
    ours = ModernModelConfig(**SIZES).build(grids, seed=3)
    assert not load_matching_weights(ours, tmp_path)
    assert torch.equal(ours.embed.ids.weight, theirs.model.embeddings.tok_embeddings.weight)


@pytest.mark.parametrize(
    "wrong", [{"window": 7}, {"positions": "alibi"}, {"norm": "post"}, {"theta": 1.0}, {"every": 0}]
)
def test_wrong_sizes_are_refused(wrong):
    with pytest.raises(ValueError, match="got"):
        ModernModelConfig(**{**SIZES, **wrong})


def test_the_base_recipes_have_the_sizes_of_the_paper():
    with torch.device("meta"):
        model = named_recipe("modernbert-base-long").build()
    assert sum(p.numel() for p in model.parameters()) == 149_655_232
    assert (model.config.theta, named_recipe("modernbert-base").model.theta) == (160_000.0, 10_000.0)
