"""Models beside a second writing of their papers' formulas: loops over samples, heads and tokens, in float64.

The second writing shares weights with the model, and none of its code but what cuts pictures into patches.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import DropAndMask, Random
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import image_grid
from maskstream.train.core.export import save_model
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.papers.cropmae.model import CropPairConfig
from maskstream.train.papers.dmae.model import DistilledAutoencoderConfig
from maskstream.train.papers.fastdit3d.blocks import ConditionedBlock
from maskstream.train.papers.mage.model import GenerativeEncoderConfig
from maskstream.train.papers.roar.model import LSTMClassifierConfig
from maskstream.train.papers.spiking_mst.model import SpikingBlock, SpikingTransformerConfig
from maskstream.train.papers.spiking_mst.spikes import Spikes

from ..text_batches import VOCABULARY, made_up
from .test_retromae import ONE_EACH, ROWS
from .test_retromae import built as retromae

GRIDS = {"image": image_grid(32, 8)}
SIZES = {"width": 32, "depth": 2, "heads": 2, "decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}


def random_weights(model: nn.Module) -> nn.Module:
    """The model in float64, with no weight, bias or token at a value where it would have no effect."""
    generator = torch.Generator().manual_seed(7)
    for parameter in model.double().parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.requires_grad_(False)


def pictures(n: int, ratio: float) -> ImageBatch:
    image = torch.randint(0, 256, (n, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask = Random(ratio=ratio).draw(GRIDS["image"], [np.random.default_rng(i) for i in range(n)])
    return ImageBatch(image=image, mask=mask, label=torch.full((n,), -1), key=[str(i) for i in range(n)])


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / 2**0.5))


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return x @ layer.weight.T + (0 if layer.bias is None else layer.bias)


def heads_of(q: Tensor, k: Tensor, v: Tensor, heads: int, added: Tensor | float = 0.0) -> Tensor:
    """One sample: queries (L, D), keys and values (S, D); `added` to the scores (heads, L, S)."""
    found, added = [], torch.as_tensor(added).expand(heads, len(q), len(k))
    for head, (a, b, c) in enumerate(zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True)):
        shares = (a @ b.T / math.sqrt(a.shape[1]) + added[head]).exp()
        found.append(shares / shares.sum(1, keepdim=True) @ c)
    return torch.cat(found, dim=1)


def attention(x: Tensor, layer: nn.Module) -> Tensor:
    """ViT's self-attention of one sample (L, D); a bias for key changes nothing."""
    q, k, v = (x @ layer.qkv.weight.T).chunk(3, dim=1)
    return linear(heads_of(q + layer.q_bias, k, v + layer.v_bias, layer.heads), layer.out)


def mlp(x: Tensor, layer: nn.Module) -> Tensor:
    return linear(gelu(linear(x, layer.up)), layer.down)


def block(x: Tensor, layer: nn.Module) -> Tensor:
    x = x + attention(normed(x, layer.norm1.of[0]), layer.attention)
    return x + mlp(normed(x, layer.norm2.of[0]), layer.mlp)


def encoded(model: nn.Module, image: Tensor, visible: Tensor, blocks: int | None = None) -> Tensor:
    """ViT's encoder over the patches `visible` of a picture; after all blocks and the norm, or after some blocks."""
    inputs = model.tokens.inputs(model.tokens.split(image[None]))[0, visible].double()
    x = linear(inputs, model.encoder.embed[0]) + model.tokens.positions(model.config.width)[visible]
    if model.encoder.class_token is not None:
        x = torch.cat((model.encoder.class_token[None], x))
    (stack,) = model.encoder.stacks
    for layer in list(stack.blocks)[:blocks]:
        x = block(x, layer)
    return x if blocks is not None else normed(x, stack.norm.of[0])


def test_cropmae_reads_the_first_view_in_each_block_of_its_decoder() -> None:
    """Gupta et al. (2023) and Eymaël et al. (2024), in this house's order: self-attention, cross-attention, MLP."""
    model, batch = random_weights(CropPairConfig(**SIZES).build(GRIDS, seed=1)), pictures(4, 0.75)
    pair = model.pair(batch)
    made = model.predict(pair)
    place = model.tokens.positions(16)
    for row in range(2):
        seen = linear(encoded(model, batch.image[2 * row], torch.arange(16)), model.bridge)
        own, target = pair.visible[row], pair.target[row]
        x = linear(encoded(model, batch.image[2 * row + 1], own), model.bridge)
        x = torch.cat((x[:1], x[1:] + place[own], model.mask_token + place[target]))
        for layer in model.decoder:
            x = x + attention(normed(x, layer.norm1), layer.attention)
            q, keys = linear(normed(x, layer.norm2), layer.cross.query), normed(seen, layer.cross.norm)
            k, v = linear(keys, layer.cross.key_value).chunk(2, dim=1)
            x = x + linear(heads_of(q, k, v, layer.cross.heads), layer.cross.out)
            x = x + mlp(normed(x, layer.norm3), layer.mlp)
        torch.testing.assert_close(made[row], linear(normed(x[-len(target) :], model.norm), model.head))


def test_dmae_compares_unit_features_of_a_block_with_those_of_the_teacher(tmp_path) -> None:
    """Bai et al. (2023): the L1 distance, of features that are projected to the teacher's width and normalised."""
    sizes, path = {"depth": 3, "heads": 2, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2}, tmp_path / "t"
    save_model(ImageAutoencoderConfig(width=24, **sizes).build(GRIDS, seed=4), path)
    told = {"teacher": str(path), "teacher_width": 24, "teacher_block": 1, "block": 0, "share": 0.5}
    model = random_weights(DistilledAutoencoderConfig(width=16, **sizes, **told).build(GRIDS, seed=5)).train()
    teacher, batch = model.teacher(torch.device("cpu")).double(), pictures(3, 0.75)
    apart = []
    for image, visible in zip(batch.image, batch.mask.visible, strict=True):
        ours = linear(encoded(model, image, visible, blocks=1), model.match)
        theirs = encoded(teacher, image, visible, blocks=2)
        units = [one / one.square().sum(1, keepdim=True).sqrt() for one in (ours, theirs)]
        apart.append((units[0] - units[1]).abs().mean())
    assert model(batch).means()["features"].item() == pytest.approx(float(torch.stack(apart).mean()))


def test_mage_fills_the_grid_with_the_class_token_and_smooths_the_labels_of_hidden_ids() -> None:
    """Li et al. (2023), section 3.2: dropped and masked cells are the encoded class token in the decoder."""
    sizes = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    config = GenerativeEncoderConfig(
        vq=None, quantiser=sizes, width=32, depth=2, heads=2, decoder_depth=2, decoder_heads=2, smoothing=0.1
    )
    grids = {"image": image_grid(16, 4)}
    model = config.build(grids, seed=1)
    quantiser = {name: one.clone() for name, one in model.vq.state_dict().items()}
    random_weights(model).vq.float().load_state_dict(quantiser)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8))
    mask = DropAndMask(ratio=0.75).draw(grids["image"], [np.random.default_rng(i) for i in range(3)])
    batch = ImageBatch(image=image, mask=mask, label=torch.full((3,), -1), key=["a", "b", "c"])
    errors = []
    for ids, visible, blank, target in zip(
        model.ids(batch).tolist(), mask.visible.tolist(), mask.mask_token.tolist(), mask.target.tolist(), strict=True
    ):
        read = [model.blank + 1, *(model.blank if blank[cell] else ids[cell] for cell in visible)]
        places = [0, *(cell + 1 for cell in visible)]
        x = normed(model.embed.ids.weight[read] + model.embed.places.weight[places], model.embed.norm)
        for layer in model.encoder.blocks:
            x = block(x, layer)
        seen = linear(normed(x, model.encoder.norm.of[0]), model.bridge)
        shown = {cell: seen[1 + i] for i, cell in enumerate(visible) if cell not in target}
        x = torch.stack([seen[0], *(shown.get(cell, seen[0]) for cell in range(16))]) + model.places.weight
        for layer in model.decoder.blocks:
            x = block(x, layer)
        x = normed(x, model.decoder.norm.of[0])[[1 + cell for cell in target]]
        head = normed(gelu(linear(x, model.head.dense)), model.head.norm)
        logits = head @ model.embed.ids.weight[: model.blank].T + model.head.bias
        nats = logits.exp().sum(1, keepdim=True).log() - logits
        wanted = [ids[cell] for cell in target]
        errors.append(0.9 * nats[torch.arange(len(target)), wanted] + 0.1 * nats.mean(1))
    assert model(batch).means()["hidden ids"].item() == pytest.approx(float(torch.cat(errors).mean()))


def test_retromae_decodes_each_place_from_the_sentence_and_the_tokens_that_it_may_see() -> None:
    """Xiao et al. (2022), section 3.3: queries are places with the sentence vector, keys that vector and the tokens."""
    batch = made_up(ONE_EACH, mask=ROWS)
    model = random_weights(retromae(batch))
    n, layer = max(n for (n,) in ONE_EACH), model.decoder
    sentence = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    made = model.decode(batch.tokens[:, :n], sentence, batch.mask.attend[:, :n, :n])
    for row, (length,) in enumerate(ONE_EACH):
        tokens = [
            model.embed.ids.weight[i] + model.embed.places.weight[at] for at, i in enumerate(batch.tokens[row, :n])
        ]
        seen = torch.stack([sentence[row], *(normed(one, model.embed.norm) for one in tokens[1:])])
        k, v = linear(seen, layer.key_value).chunk(2, dim=1)
        for at in range(1, length - 1):
            asked = model.embed.places.weight[at] + sentence[row]
            may = batch.mask.attend[row, at, :n].nonzero()[:, 0]
            assert at not in may.tolist()
            found = heads_of(linear(asked, layer.query)[None], k[may], v[may], layer.heads)
            x = normed(asked + linear(found, layer.out)[0], layer.norm1)
            torch.testing.assert_close(made[row, at], normed(x + mlp(x, layer.mlp), layer.norm2))


def test_mosaicbert_penalises_distance_and_gates_its_feed_forward_layers() -> None:
    """Portes et al. (2023), with ALiBi's slopes 2^(-8 h / H) (Press et al., 2022) within each document."""
    batch = made_up()
    sizes = {"vocabulary": VOCABULARY, "width": 32, "depth": 2, "heads": 4, "positions": "alibi", "gated": True}
    model = random_weights(TokenModelConfig(**sizes).build({"text": batch.mask.grid}, seed=3))
    made, edges = model.encode(batch), batch.unpadded.cu_seqlens.tolist()
    ids = batch.unpadded.gathered(batch.inputs)
    for first, stop in pairwise(edges):
        x = normed(model.embed.ids.weight[ids[first:stop].long()], model.embed.norm)
        place = torch.arange(stop - first)
        penalty = torch.stack([-(2.0 ** (-2 * (h + 1))) * (place[:, None] - place).abs() for h in range(4)])
        for layer in model.blocks:
            q, k, v = linear(x, layer.attention.qkv).chunk(3, dim=1)
            x = normed(x + linear(heads_of(q, k, v, 4, penalty), layer.attention.out), layer.norm1)
            gate, value = linear(x, layer.mlp.up).chunk(2, dim=1)
            x = normed(x + linear(gelu(gate) * value, layer.mlp.down), layer.norm2)
        torch.testing.assert_close(made[first:stop], x)


def test_a_spiking_block_fires_quantised_clips_and_drops_what_its_seeds_say() -> None:
    """Wang et al. (2023) with QCFS (Bu et al., 2022): h(x) = a clip(floor(x L / a + 1/2) / L, 0, 1)."""
    config = SpikingTransformerConfig(width=16, depths=(1,), heads=(2,), levels=4, labels=3, spikes=Spikes(ratio=0.5))
    layer = random_weights(SpikingBlock(config, 16, 2, 2, first=3))
    x, seeds = (
        torch.randn(2, 3, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        torch.arange(2),
    )
    kept = [
        config.spikes.keep(seeds, shape, 3 + site) for site, shape in enumerate(2 * [(3, 2, 4, 8)] + [(3, 2, 4, 4)])
    ]

    def h(name: str, value: Tensor) -> Tensor:
        a = layer.units[name].threshold
        return a * (torch.floor(value * 4 / a + 0.5) / 4).clamp(0, 1)

    made = layer(x, None, seeds=seeds, run=None)
    for sample in range(2):
        for window in range(3):
            own = x[sample, window]
            q, k, v = linear(h("in", own * layer.norm1.weight + layer.norm1.bias), layer.qkv).chunk(3, dim=1)
            found = []
            for head in range(2):
                part = slice(8 * head, 8 * head + 8)
                drop_q, drop_k, drop = (one[sample, window, head] for one in kept)
                scores = (
                    h("scores", (h("q", q[:, part]) * drop_q) @ (h("k", k[:, part]) * drop_k).T / math.sqrt(8)) * drop
                )
                for i in range(4):
                    for j in range(4):
                        apart = (i // 2 - j // 2 + 1) * 3 + i % 2 - j % 2 + 1
                        scores[i, j] = scores[i, j] + layer.near[head, apart]
                found.append(scores.softmax(1) @ h("v", v[:, part]))
            own = own + h("out", linear(h("seen", torch.cat(found, dim=1)), layer.out))
            up = linear(h("between", own * layer.norm2.weight + layer.norm2.bias), layer.up)
            torch.testing.assert_close(made[sample, window], own + h("down", linear(h("hidden", up), layer.down)))


def test_a_block_of_fastdit3d_is_shifted_scaled_and_gated_by_its_condition() -> None:
    """adaLN of Peebles and Xie (2022), with gates that begin at 1."""
    layer = random_weights(ConditionedBlock(16, 2, 4, 6))
    generator = torch.Generator().manual_seed(3)
    x, condition = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in ((5, 16), (6,)))
    made = layer(x, condition, torch.zeros(2, 16).double())
    for own, told, found in zip(x, condition, made, strict=True):
        move1, scale1, gate1, move2, scale2, gate2 = linear(told * told.sigmoid(), layer.modulation).chunk(6)
        one = torch.nn.LayerNorm(16, eps=1e-6).double().requires_grad_(False)
        own = own + (1 + gate1) * attention(normed(own, one) * (1 + scale1) + move1, layer.attention)
        own = own + (1 + gate2) * mlp(normed(own, one) * (1 + scale2) + move2, layer.mlp)
        torch.testing.assert_close(found, own)


def test_the_lstm_of_roar_weighs_its_states_by_additive_attention() -> None:
    """Jain and Wallace (2019): states of both directions by the gates of an LSTM, softmax of v tanh(W h + b)."""
    batch = made_up(ONE_EACH)
    config = LSTMClassifierConfig(vocabulary=VOCABULARY, width=8, hidden=5, labels=3)
    model = random_weights(config.build({"text": batch.mask.grid}, seed=2))
    made = model.read(model.vectors(batch), batch)

    def states(x: Tensor, end: str) -> list[Tensor]:
        w, u, a, b = (
            getattr(model.lstm, f"{name}_l0{end}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden, cell, found = torch.zeros(5).double(), torch.zeros(5).double(), []
        for one in x:
            enter, forget, new, leave = (w @ one + a + u @ hidden + b).chunk(4)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            found.append(hidden)
        return found

    for row, (length,) in enumerate(ONE_EACH):
        x = model.ids.weight[batch.inputs[row, :length].long()]
        both = zip(states(x, ""), reversed(states(x.flip(0), "_reverse")), strict=True)
        told = torch.stack([torch.cat(pair) for pair in both])
        shares = linear(linear(told, model.asked).tanh(), model.asks)[:, 0].softmax(0)
        torch.testing.assert_close(made.attention[row, :length], shares)
        torch.testing.assert_close(made.scores[row], linear(shares @ told, model.head))
