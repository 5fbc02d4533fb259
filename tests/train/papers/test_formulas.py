"""Models beside a second writing of their papers' formulas (second_writing.py). Those of two modalities are in
test_formulas_of_two.py.
"""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskstream.pipelines.masks import DropAndMask, Joints, Random, TokenGrid
from maskstream.pipelines.modalities.image.batch import ImageBatch
from maskstream.pipelines.modalities.image.data import compute_image_grid
from maskstream.pipelines.modalities.points.batch import PointsBatch
from maskstream.pipelines.modalities.points.tokens import GroupTokens
from maskstream.pipelines.modalities.pose.batch import PoseBatch
from maskstream.pipelines.modalities.video.batch import IMAGENET_MEAN, IMAGENET_STD, VideoBatch
from maskstream.train.core.optimiser import find_matrices
from maskstream.train.core.weights import save_model
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig, VideoAutoencoderConfig
from maskstream.train.nn.quantiser import QuantiserConfig
from maskstream.train.nn.token_model import TokenModelConfig
from maskstream.train.papers.cropmae.model import CropPairConfig
from maskstream.train.papers.dmae.model import DistilledAutoencoderConfig
from maskstream.train.papers.fastdit3d.model import ConditionedBlock
from maskstream.train.papers.lmd.model import LatentAutoencoderConfig
from maskstream.train.papers.mage.model import GenerativeEncoderConfig
from maskstream.train.papers.mpm.model import PoseModelConfig
from maskstream.train.papers.pointmae.model import PointAutoencoderConfig
from maskstream.train.papers.roar.model import LSTMClassifierConfig
from maskstream.train.papers.spiking_mst.model import Spikes, SpikingBlock, SpikingTransformerConfig

from ..text_batches import VOCABULARY, made_up
from .second_writing import (
    GRIDS,
    SIZES,
    attention,
    block,
    check_parity,
    cross,
    decoded,
    encoded,
    gelu,
    heads_of,
    linear,
    mlp,
    nats,
    normed,
    pictures,
    random_weights,
    stacked,
    whitened,
    words,
)
from .test_retromae import ONE_EACH, ROWS
from .test_retromae import built as retromae


@pytest.mark.parametrize("own", [{}, {"norm": "pre", "positions": "grid", "key_places": True}])
def test_cropmae_reads_the_first_view_in_each_block_of_its_decoder(own) -> None:
    """Gupta et al. (2023) and Eymaël et al. (2024). With copied weights, loss and gradients of the defaults were those
    of SiameseMAE in alexandre-eymael/CropMAE at 5d0dab2, to 2e-16 and 2e-15 in float64, dropout left out.
    """
    model, batch = random_weights(CropPairConfig(**SIZES, **own).build(GRIDS, seed=1)), pictures(4, 0.75)
    model.requires_grad_(True)
    pair, place, errors = model.pair(batch), model.tokens.positions(16), []
    for row in range(2):
        seen = linear(encoded(model, batch.image[2 * row], torch.arange(16)), model.bridge)
        if own:
            seen = torch.cat((seen[:1], seen[1:] + place))
        visible, target = pair.visible[row], pair.target[row]
        x = linear(encoded(model, batch.image[2 * row + 1], visible), model.bridge)
        x = torch.cat((x[:1], x[1:] + place[visible], model.mask_token + place[target]))
        for layer in model.decoder:
            one, two, three = layer.norms
            if own:
                x = x + cross(normed(x, one), seen, layer.cross)
                x = x + mlp(normed(x, two), layer.mlp)
                x = x + attention(normed(x, three), layer.attention)
            else:
                x = normed(x + cross(x, seen, layer.cross), one)
                x = normed(x + mlp(x, layer.mlp), two)
                x = normed(x + attention(x, layer.attention), three)
        made = linear(normed(x[-len(target) :], model.norm), model.head)
        hidden = model.tokens.inputs(model.tokens.split(pair.second))[row, target]
        errors.append((made - whitened(hidden)).square().mean())
    check_parity(model, model(batch).loss(), torch.stack(errors).mean())


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


@pytest.mark.parametrize("detached", [True, False])
def test_mage_fills_the_grid_with_the_class_token_and_smooths_the_labels_of_hidden_ids(detached) -> None:
    """Li et al. (2023), section 3.2: dropped and masked cells are the encoded class token in the decoder. With copied
    weights, loss and gradients of the detached table were those of MaskedGenerativeEncoderViT in LTH14/mage at 1becb14,
    to 0 and 2e-15 in float64, dropout left out.
    """
    sizes = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    config = GenerativeEncoderConfig(
        vq=None, quantiser=sizes, width=32, depth=2, heads=2, decoder_depth=2, decoder_heads=2, detached=detached
    )
    grids = {"image": compute_image_grid(16, 4)}
    model = config.build(grids, seed=1)
    quantiser = {name: one.clone() for name, one in model.vq.state_dict().items()}
    random_weights(model).vq.float().load_state_dict(quantiser)
    model.requires_grad_(True).vq.requires_grad_(False)
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
        table = model.embed.ids.weight[: model.blank]
        logits = words(x, model.head, table.detach() if detached else table)
        all_ids = torch.arange(model.blank)
        each = torch.stack([nats(one.expand(model.blank, -1), all_ids) for one in logits])
        errors.append(0.9 * each[torch.arange(len(target)), [ids[cell] for cell in target]] + 0.1 * each.mean(1))
    check_parity(model, model(batch).loss(), torch.cat(errors).mean())


def test_retromae_decodes_each_place_from_the_sentence_and_the_tokens_that_it_may_see() -> None:
    """Xiao et al. (2022), section 3.3: queries are places with the sentence vector, keys that vector and the tokens.

    A BERT's vector of segments is in the tokens, not in the queries. Checked with copied weights against the authors'
    code (staoxiao/RetroMAE ee37587) in float64: the loss is the same, gradients differ by 8e-16.
    """
    batch = made_up(ONE_EACH, mask=ROWS)
    model = random_weights(retromae(batch, segment=True)).requires_grad_()
    embed, layer = model.embed, model.decoder

    def told(ids: Tensor, at: int) -> Tensor:
        return normed(embed.ids.weight[ids.long()] + embed.places.weight[at] + embed.segment, embed.norm)

    hidden, decoded = [], []
    for row, (length,) in enumerate(ONE_EACH):
        true = batch.tokens[row, :length]
        x = torch.stack([told(one, at) for at, one in enumerate(batch.inputs[row, :length])])
        for one in model.blocks:
            q, k, v = linear(x, one.attention.qkv).chunk(3, dim=1)
            x = normed(x + linear(heads_of(q, k, v, 4), one.attention.out), one.norm1)
            x = normed(x + mlp(x, one.mlp), one.norm2)
        places = batch.mask.masked[row, :length].nonzero()[:, 0]
        hidden.append(nats(words(x[places], model.head, embed.ids.weight), true[places]))
        seen = torch.stack([x[0], *(told(one, at) for at, one in enumerate(true) if at)])
        k, v = linear(seen, layer.key_value).chunk(2, dim=1)
        for at in range(1, length - 1):
            asked = embed.places.weight[at] + x[0]
            may = batch.mask.attend[row, at, :length].nonzero()[:, 0]
            assert at not in may.tolist()
            found = heads_of(linear(asked, layer.query)[None], k[may], v[may], layer.heads)
            y = normed(asked + linear(found, layer.out)[0], layer.norm1)
            y = normed(y + mlp(y, layer.mlp), layer.norm2)
            decoded.append(nats(words(y, model.head, embed.ids.weight), true[at]))
    check_parity(model, model.loss(batch).loss(), torch.cat(hidden).mean() + torch.stack(decoded).mean())


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
    """Wang et al. (2023) with QCFS (Bu et al., 2022): h(x) = a clip(floor(x L / a + 1/2) / L, 0, 1).

    What is added to the feed-forward part is what enters it, behind the norm. Checked with copied weights against the
    authors' code (bic-L/Masked-Spiking-Transformer 368c9a5) in float64: 9e-16, and gradients 4e-15.
    """
    config = SpikingTransformerConfig(width=16, depths=(1,), heads=(2,), levels=4, labels=3, spikes=Spikes(ratio=0.5))
    layer = random_weights(SpikingBlock(config, 16, 2, 2, first=3)).requires_grad_()
    x, seeds = (
        torch.randn(2, 3, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        torch.arange(2),
    )
    kept = [
        config.spikes.keep(seeds, shape, 3 + site) for site, shape in enumerate(2 * [(3, 2, 4, 8)] + [(3, 2, 4, 4)])
    ]

    def h(name: str, value: Tensor) -> Tensor:
        a = layer.units[name].threshold
        level = value * 4 / a + 0.5
        level = level + (level.floor() - level).detach()  # the gradient of floor is 1
        return a * torch.where(level < 0, 0.0, torch.where(level > 4, 4.0, level)) / 4

    generator = torch.Generator().manual_seed(2)
    weight, expected = torch.randn(x.shape, generator=generator, dtype=torch.float64), torch.zeros(()).double()
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
            own = own * layer.norm2.weight + layer.norm2.bias
            own = own + h("down", linear(h("hidden", linear(h("between", own), layer.up)), layer.down))
            torch.testing.assert_close(made[sample, window], own)
            expected = expected + (own * weight[sample, window]).sum()
    check_parity(layer, (made * weight).sum(), expected)


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
    """Jain and Wallace (2019): states of both directions by the gates of an LSTM, softmax of v tanh(W h + b).

    Their attention has no weight decay. Checked with copied weights against the code of Madsen et al. (AndreasMadsen/
    nlp-roar-interpretability 1240e74) in float64: logits, attention and gradients are the same.
    """
    batch = made_up(ONE_EACH)
    config = LSTMClassifierConfig(vocabulary=VOCABULARY, width=8, hidden=5, labels=3, decayed_attention=False)
    model = random_weights(config.build({"text": batch.mask.grid}, seed=2)).requires_grad_()
    decayed = {f"lstm.weight_{part}_l0{end}" for part in ("ih", "hh") for end in ("", "_reverse")}
    assert find_matrices(model) == {*decayed, "head.weight"}
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

    scores = []
    for row, (length,) in enumerate(ONE_EACH):
        x = model.ids.weight[batch.inputs[row, :length].long()]
        both = zip(states(x, ""), reversed(states(x.flip(0), "_reverse")), strict=True)
        told = torch.stack([torch.cat(pair) for pair in both])
        shares = linear(linear(told, model.asked).tanh(), model.asks)[:, 0].softmax(0)
        torch.testing.assert_close(made.attention[row, :length], shares)
        scores.append(linear(shares @ told, model.head))
    labels = torch.tensor([2, 0, 1])
    check_parity(model, nats(made.scores, labels).mean(), nats(torch.stack(scores), labels).mean())


def sines(place: int, width: int) -> list[float]:
    """Vaswani et al. (2017), 3.5: the sines of width / 2 waves, then their cosines."""
    angles = [place / 10000 ** (2 * i / width) for i in range(width // 2)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


def test_lmd_is_mae_of_patches_of_latents_that_are_not_rounded(monkeypatch) -> None:
    """Ma et al. (2023): all channels of a patch of latents are normalised together; places have columns first. With
    copied weights, loss and gradients were those of MaskedAutoencoderViT in AnonymousPony/lmd at db7e403, to 0 and
    2e-15 in float64, with the decoder's places subtracted as there.
    """
    sizes = QuantiserConfig(levels=(4, 8), stem=2, widths=(8, 16))
    own = {"class_token": True, "bridge_bias": True, "positions": "columns"}
    config = LatentAutoencoderConfig(vq=None, quantiser=sizes, **own, **SIZES)
    model, batch = random_weights(config.build(GRIDS, seed=1)).requires_grad_(True), pictures(3, 0.75)
    vq = model.tokens.vq.requires_grad_(False).float()
    inner = vq.quantiser.down(batch.image.permute(0, 3, 1, 2) / 127.5 - 1).double()
    found, mask = model.tokens.of(batch)
    torch.testing.assert_close(found, (2 / (1 + (-inner).exp()) - 1).permute(0, 2, 3, 1).float())
    latents = found.double().permute(0, 3, 1, 2)
    monkeypatch.setattr(model.tokens, "of", lambda batch: (found.double(), mask))
    places = {
        width: torch.tensor([sines(x, width // 2) + sines(y, width // 2) for y in range(4) for x in range(4)])
        for width in (32, 16)
    }
    errors = []
    for row, (visible, target) in enumerate(zip(batch.mask.visible, batch.mask.target, strict=True)):
        patches = []
        for y in range(0, 8, 2):
            for x in range(0, 8, 2):
                patches.append(torch.stack([latents[row, :, y + i, x + j] for i in (0, 1) for j in (0, 1)]).flatten())
        tokens = torch.stack(patches)
        x = linear(tokens[visible], model.encoder.embed[0]) + places[32][visible]
        seen = stacked(torch.cat((model.encoder.class_token[None], x)), model.encoder.stacks[0])
        made = decoded(seen, model.decoder, places[16], visible, target)
        errors.append((made - whitened(tokens[target])).square().mean())
    check_parity(model, model(batch).loss(), torch.stack(errors).mean())


@pytest.mark.parametrize("own_class", [True, False])
def test_mae_st_reads_a_class_token_and_places_of_time_and_space_and_predicts_a_frame_of_each_cube(own_class) -> None:
    """Feichtenhofer et al. (2022), whose decoder has a class token of its own, or else the encoder's, with a place.
    With copied weights, loss and gradients of the former were those of MaskedAutoencoderViT in facebookresearch/mae_st
    at c5dec1b, to 0 and 2e-15 in float64, with the target frames 0, 2, 4 and 6 of 8, theirs 0, 2, 4 and 7.
    """
    grid = TokenGrid.video(4, 32, 32, tubelet=2, patch=8)
    own = {"class_token": True, "learnt": True, "bridge_bias": True, "target": "frame", "own_class": own_class}
    model = random_weights(VideoAutoencoderConfig(**own, **SIZES).build({"video": grid}, seed=1)).requires_grad_(True)
    video = torch.randint(0, 256, (2, 4, 32, 32, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mask = Random(ratio=0.75).draw(grid, [np.random.default_rng(i) for i in range(2)])
    batch = VideoBatch(video=video, mask=mask, flow=None, pts_s=torch.zeros(2, 4), label=torch.zeros(2), key=["a", "b"])
    colours = [torch.tensor(one).mul(255).double() for one in (IMAGENET_MEAN, IMAGENET_STD)]
    pixels = (video.double() - colours[0]) / colours[1]
    cells = [(t, y, x) for t in range(2) for y in range(4) for x in range(4)]
    errors = []
    for row in range(2):
        cubes = [pixels[row, 2 * t : 2 * t + 2, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] for t, y, x in cells]

        def places(positions: nn.Module) -> Tensor:
            return torch.stack([positions.time[t] + positions.space[4 * y + x] for t, y, x in cells])

        visible, target = mask.visible[row], mask.target[row]
        values = torch.stack([cube.permute(3, 0, 1, 2).flatten() for cube in cubes])
        x = linear(values[visible], model.encoder.embed[0]) + places(model.encoder.positions)[visible]
        seen = stacked(torch.cat((model.encoder.class_token[None], x)), model.encoder.stacks[0])
        made = decoded(seen, model.decoder, places(model.decoder.positions), visible, target)
        frames = torch.stack([cubes[i][0].permute(2, 0, 1).flatten() for i in target.tolist()])
        errors.append((made - whitened(frames)).square().mean())
    check_parity(model, model(batch).loss(), torch.stack(errors).mean())


def published_blocks(x: Tensor, stack: nn.Module) -> Tensor:
    """The blocks of MPM's code: ReLU, and norms that divide by the unbiased deviation plus epsilon."""

    def scaled(x: Tensor, norm: nn.LayerNorm) -> Tensor:
        return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + norm.eps) * norm.weight + norm.bias

    for layer in stack.blocks:
        x = x + attention(scaled(x, layer.norm1.of[0]), layer.attention)
        x = x + linear(linear(scaled(x, layer.norm2.of[0]), layer.mlp.up).relu(), layer.mlp.down)
    return scaled(x, stack.norm.of[0])


@pytest.mark.parametrize("published", [False, True])
def test_mpm_completes_poses_of_both_kinds_by_shared_blocks_and_lifts_the_flat_ones(published: bool) -> None:
    """Zhang et al. (2023): hidden joints get a learnt place, hidden frames a token in the decoder of their kind.

    The published blocks, with the norm behind them, were checked with copied weights against the authors' code
    (vvirgooo2/MPM 47ceae4, Transformer and encoder_LN) in float64: 9e-16, and gradients 1e-15.
    """
    frames, joints, generator = 6, 5, torch.Generator().manual_seed(4)
    grid = TokenGrid(axes=("frame", "joint"), shape=(frames, joints), patch=(1, 1))
    config = PoseModelConfig(width=16, hidden=24, depth=2, heads=2, shares=(5.0, 3.0, 1.0), published=published)
    model = random_weights(config.build({"pose": grid}, seed=1)).requires_grad_()
    flat, solid = (torch.randn(3, frames, joints, n, generator=generator, dtype=torch.float64) for n in (2, 3))
    hide = Joints(frames=0.5, joints=2)
    masks = [hide.draw(grid, [np.random.default_rng([kind, i]) for i in range(3)]) for kind in range(2)]
    batch = PoseBatch(
        pose_3d=solid,
        pose_2d=flat,
        root=torch.zeros(3, frames, 3),
        focal=torch.ones(3).double(),
        mask_2d=masks[0],
        mask_3d=masks[1],
        label=torch.zeros(3),
        key=["a", "b", "c"],
    )
    place, through = model.encoder.positions(), published_blocks if published else stacked
    units = (1.0, 1.0) if published else (0.2, 0.35)

    def read(pose: Tensor, kind: int, row: int) -> tuple[Tensor, list[int]]:
        hidden = masks[kind].masked[row].view(frames, joints)
        seen = [t for t in range(frames) if not hidden[t].all()]
        tokens = []
        for t in seen:
            at = [model.encoder.places[kind] if hidden[t, j] else pose[row, t, j] / units[kind] for j in range(joints)]
            inner = gelu(linear(torch.cat(at), model.encoder.first[kind]))
            tokens.append(linear(inner, model.encoder.second[1]) + place[t])
        return through(torch.stack(tokens), model.encoder.stack), seen

    def write(read_: tuple[Tensor, list[int]], decoder: nn.Module, true: Tensor) -> Tensor:
        x, seen = read_
        tokens = [x[seen.index(t)] if t in seen else decoder.mask_token for t in range(frames)]
        made = linear(through(torch.stack(tokens) + place, decoder.stack), decoder.head)
        return (made.view(true.shape) - true).square().sum(-1).sqrt().mean()

    errors = dict.fromkeys(("2d", "3d", "lift"), torch.zeros(()).double())
    for row in range(3):
        of_flat, of_solid = read(flat, 0, row), read(solid, 1, row)
        errors["2d"] = errors["2d"] + write(of_flat, model.decoder_2d, flat[row]) / 3
        errors["3d"] = errors["3d"] + write(of_solid, model.decoder_3d, solid[row]) / 3
        errors["lift"] = errors["lift"] + write(of_flat, model.decoder_3d, solid[row]) / 3
    losses = model(batch)
    assert {name: mean.item() for name, mean in losses.means().items()} == pytest.approx(
        {name: one.item() for name, one in errors.items()}
    )
    check_parity(model, losses.loss(), 5 * errors["2d"] + 3 * errors["3d"] + errors["lift"])


def test_point_mae_predicts_the_points_of_hidden_groups_around_their_centres() -> None:
    """Pang et al. (2022): farthest points, their neighbours, a PointNet, places before each block."""
    grid = GroupTokens(groups=8, size=6).grid
    model = random_weights(PointAutoencoderConfig(width=24, depth=2, heads=2, decoder_depth=2).build({"points": grid}))
    plain = deepcopy(model.float()).double()
    points = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(0))
    mask = Random(ratio=0.6).draw(grid, [np.random.default_rng(i) for i in range(2)])
    batch = PointsBatch(points=points, noise=None, time=None, mask=mask, label=torch.zeros(2), key=["a", "b"])

    def apart(one: Tensor, other: Tensor) -> float:
        return float((one - other).square().sum())

    def embedded(group: Tensor) -> Tensor:
        each = [gelu(normed(linear(point, plain.embed.first[0]), plain.embed.first[1])) for point in group]
        each = [linear(one, plain.embed.first[3]) for one in each]
        whole = torch.stack(each).amax(0)
        both = [
            gelu(normed(linear(torch.cat((whole, one)), plain.embed.second[0]), plain.embed.second[1])) for one in each
        ]
        return torch.stack([linear(one, plain.embed.second[3]) for one in both]).amax(0)

    def placed(centre: Tensor, layer: nn.Module) -> Tensor:
        return linear(gelu(linear(centre, layer[0])), layer[2])

    def read(x: Tensor, place: Tensor, stack: nn.Module) -> Tensor:
        for layer in stack.blocks:
            x = block(x + place, layer)
        return normed(x, stack.norm.of[0])

    errors = []
    for cloud, visible, target in zip(points.double(), mask.visible.tolist(), mask.target.tolist(), strict=True):
        chosen = [0]
        while len(chosen) < 8:
            chosen.append(max(range(40), key=lambda i: min(apart(cloud[i], cloud[j]) for j in chosen)))
        groups = [
            torch.stack(sorted(cloud, key=lambda point: apart(point, cloud[centre]))[:6]) - cloud[centre]
            for centre in chosen
        ]
        centres = cloud[chosen]
        x = torch.stack([embedded(groups[i]) for i in visible])
        x = read(x, placed(centres[visible], plain.place), plain.encoder)
        x = torch.cat((x, plain.mask_token.expand(len(target), -1)))
        x = read(x, placed(centres[visible + target], plain.decoder_place), plain.decoder)
        for token, i in zip(x[len(visible) :], target, strict=True):
            made = linear(token, plain.head).view(6, 3)
            there = [min(apart(one, other) for other in groups[i]) for one in made]
            back = [min(apart(one, other) for other in made) for one in groups[i]]
            errors.append(sum(there) / 6 + sum(back) / 6)
    assert model(batch).loss().item() == pytest.approx(sum(errors) / len(errors), rel=1e-5)
