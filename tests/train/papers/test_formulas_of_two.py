"""Models of two modalities beside a second writing of their papers' formulas (second_writing.py)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from maskstream.pipelines.modalities.image_text.batch import PADDING, ImageTextBatch, TextRows
from maskstream.train.nn.transformer import CoAttention
from maskstream.train.papers.avsiam.model import AUDIO, VIDEO
from maskstream.train.papers.m3ae.model import ImageTextAutoencoderConfig
from maskstream.train.papers.oneref.model import OneRefConfig

from ..text_batches import VOCABULARY, made_up
from .second_writing import (
    GRIDS,
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
from .test_audiovisual import FRAME, SIZES, SOUND, siamese_batch


@pytest.mark.parametrize("published", [False, True])
def test_avsiam_matches_means_of_tokens_and_reconstructs_both_modalities_from_both(published: bool) -> None:
    """Lin and Bertasius (2024): blocks are shared, embeddings, places and norms are not.

    As published, sounds have blocks of their own in reconstruction, two joint blocks follow, and losses are summed.
    Checked with copied weights against the authors' code (GenjiB/AVSiam f700326) in float64: joint blocks, the second
    encoder, their gradients and the matching are the same.
    """
    options = {"joint_depth": 2, "own_sounds": True, "summed": True} if published else {}
    config = replace(SIZES, temperature=0.1, matching=0.3, **options)
    model = random_weights(config.build({"video": FRAME, "audio": SOUND}, seed=1)).requires_grad_()
    batch = siamese_batch(7)
    batch = replace(batch, spectrogram=batch.spectrogram.double())
    sounds = batch.spectrogram.unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).flatten(1, 2)
    frames = batch.video[:, 0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(4).flatten(1, 2).flatten(2)
    values = (model.video.inputs(frames), sounds)
    masks = (batch.video_mask.masked, batch.audio_mask.masked)

    def read(kind: int, row: int, own: bool = False) -> Tensor:
        seen = ~masks[kind][row]
        x = linear(values[kind][row, seen], model.encoder.embed[kind]) + model.encoder.positions(kind)[seen]
        return stacked(x, model.sounds) if own and kind == AUDIO else stacked(x, model.encoder.stacks[0], kind)

    def wanted(kind: int, row: int) -> Tensor:
        hidden = values[kind][row, masks[kind][row]]
        if kind == AUDIO:
            return whitened(hidden)
        colours = frames[row, masks[kind][row]].double().unflatten(1, (3, -1)) / 255
        return ((colours - colours.mean(2, keepdim=True)) / (colours.std(2, keepdim=True) + 1e-6)).flatten(1)

    errors: dict[int, list[Tensor]] = {VIDEO: [], AUDIO: []}
    decoder = model.decoder
    for row in range(1, 14, 2):
        place = [decoder.positions(kind) + decoder.kind[kind] for kind in (VIDEO, AUDIO)]
        known = [read(kind, row, own=published) for kind in (VIDEO, AUDIO)]
        both = torch.cat(known)
        for layer in model.joint:
            both = block(both, layer)
        known = [
            linear(one, decoder.bridge) + place[kind][~masks[kind][row]]
            for kind, one in enumerate(both.split([len(one) for one in known]))
        ]
        hidden = [decoder.mask_token + place[kind][masks[kind][row]] for kind in (VIDEO, AUDIO)]
        x = stacked(torch.cat((*known, *hidden)), decoder.stack)
        for kind, part in enumerate(x[len(known[0]) + len(known[1]) :].split([len(one) for one in hidden])):
            errors[kind].append((linear(part, decoder.head[kind]) - wanted(kind, row)).square().mean())
    means = [torch.stack([read(kind, row).mean(0) for row in range(0, 14, 2)]) for kind in (VIDEO, AUDIO)]
    clips, heard = (one / one.square().sum(1, keepdim=True).sqrt() for one in means)
    alike, own = clips @ heard.T / 0.1, torch.arange(7)
    matched = (nats(alike, own) + nats(alike.T, own)).mean() / 2 / math.log(7)
    losses = model(batch)
    video, audio = (torch.stack(errors[kind]).mean() for kind in (VIDEO, AUDIO))
    made = {name: mean.item() for name, mean in losses.means().items()}
    assert made == pytest.approx({"video": video.item(), "audio": audio.item(), "matching": matched.item()})
    whole = video + audio + matched * math.log(7) if published else 0.35 * video + 0.35 * audio + 0.3 * matched
    check_parity(model, losses.loss(), whole)


def image_text(lengths: tuple[int, ...] = (12, 20, 7)) -> ImageTextBatch:
    """Three pictures of 16 patches with a text each, both masked, and texts to judge."""
    seen = pictures(len(lengths), 0.75)

    def rows(order: int) -> tuple[TextRows, object]:
        text = made_up(tuple((n,) for n in lengths[::order]), seed=order % 5)
        roles = torch.where(text.documents < 0, PADDING, 0)
        return TextRows(tokens=text.tokens, words=text.words, roles=roles), text.mask

    (text, mask), (pair, _) = rows(1), rows(-1)
    segment = torch.zeros(3, 32, 32, dtype=torch.bool)
    segment[0, 4:20, 9:30], segment[1, :8] = True, True
    return ImageTextBatch(
        image=seen.image,
        image_mask=seen.mask,
        text=text,
        text_mask=mask,
        box=torch.tensor([[0.125, 0.25, 0.6875, 0.875], [0.5, 0.0, 1.0, 0.3125], 4 * [torch.nan]]),
        segment=segment,
        pair=pair,
        match=torch.tensor([True, False, True]),
        label=torch.zeros(3),
        key=["a", "b", "c"],
    )


@pytest.mark.parametrize(
    "own", [{}, {"clip": True, "norm": "post", "projected": True, "positions": "columns", "untied": True}]
)
def test_m3ae_fuses_streams_by_attention_to_each_other_and_has_three_tasks(own) -> None:
    """Chen et al. (2022): patches from the layer in the middle, words and the judgement from the last one. With copied
    weights, loss and gradients of the second were those of M3AETransformerSS in zhjohnchan/M3AE at 14da377, to 0 and
    1e-14 in float64, with equal epsilons, no dropout, and pixels normalised as here.
    """
    config = ImageTextAutoencoderConfig(
        vocabulary=VOCABULARY,
        width=32,
        depth=2,
        text_depth=2,
        fusion_depth=2,
        heads=2,
        image_layer=1,
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
        **own,
    )
    batch = image_text()
    model = random_weights(config.build({**GRIDS, "text": batch.text_mask.grid}, seed=1)).requires_grad_(True)
    part, place = model.encoder, model.tokens.positions(16)
    place = place.roll(8, 1) if own else place

    def onto(x: Tensor, kind: int) -> Tensor:
        return (linear(x, part.onto[kind]) if own else x) + part.kind[kind]

    def last(x: Tensor, kind: int) -> Tensor:
        return x if own else normed(x, part.norms[kind])

    def text_of(ids: Tensor) -> Tensor:
        x = normed(part.embed.ids.weight[ids.long()] + part.embed.places.weight[: len(ids)], part.embed.norm)
        return onto(stacked(x, part.text), 1)

    def co_attended(x: Tensor, other: Tensor, layer: CoAttention) -> Tensor:
        if own:
            x = normed(x + attention(x, layer.attention), layer.norm1)
            x = normed(x + cross(x, other, layer.cross), layer.norm2)
            return normed(x + mlp(x, layer.mlp), layer.norm3)
        x = x + attention(normed(x, layer.norm1), layer.attention)
        x = x + cross(normed(x, layer.norm2), other, layer.cross)
        return x + mlp(normed(x, layer.norm3), layer.mlp)

    def fused(image: Tensor, text: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
        for layer in part.blocks[:blocks]:
            image, text = co_attended(image, text, layer.image), co_attended(text, image, layer.text)
        return image, text

    class Seen(nn.Module):
        """The image's encoder, as `encoded` takes it."""

        def __init__(self) -> None:
            super().__init__()
            self.config, self.encoder, self.tokens = config, part.image, model.tokens

    def image_of(row: int, visible: Tensor) -> Tensor:
        if not own:
            return onto(encoded(Seen(), batch.image[row], visible), 0)
        patches = model.tokens.inputs(model.tokens.split(batch.image[row, None]))[0, visible]
        x = linear(patches, part.image.embed) + part.image.place[visible]
        return onto(
            stacked(normed(torch.cat((part.image.class_token[None], x)), part.image.before), part.image.stack), 0
        )

    wrong, far, unlike = [], [], []
    for row in range(3):
        n, m = int(batch.text.valid[row].sum()), int(batch.pair.valid[row].sum())
        image = image_of(row, torch.arange(16))
        _, read = fused(image, text_of(batch.inputs[row, :n]), 2)
        hidden = batch.text_mask.masked[row].nonzero()[:, 0]
        table = model.table.weight if own else part.embed.ids.weight
        logits = words(last(read, 1)[hidden], model.words, table)
        wrong.append(nats(logits, batch.text.tokens[row, hidden]))
        seen, told = fused(image, text_of(batch.pair.tokens[row, :m]), 2)
        first = (last(told, 1)[0], last(seen, 0)[0])
        pooled = torch.cat((linear(first[0], model.pooler.text), linear(first[1], model.pooler.image))).tanh()
        unlike.append(nats(linear(pooled, model.match)[None], batch.match[row, None]))
        visible, target = batch.image_mask.visible[row], batch.image_mask.target[row]
        half, _ = fused(image_of(row, visible), text_of(batch.text.tokens[row, :n]), 1)
        made = decoded(half, model.decoder, place, visible, target)
        patches = model.tokens.inputs(model.tokens.split(batch.image[row, None]))[0]
        far.append((made - whitened(patches[target])).square().mean(1))
    parts = {"hidden words": wrong, "hidden patches": far, "matching": unlike}
    expected = {name: torch.cat(each).mean() for name, each in parts.items()}
    losses = model(batch)
    assert {name: mean.item() for name, mean in losses.means().items()} == pytest.approx(
        {name: one.item() for name, one in expected.items()}, rel=1e-10
    )
    check_parity(model, losses.loss(), torch.stack(list(expected.values())).sum())


AS_THE_AUTHORS = {"apart": True, "plain": True, "untied": True, "smoothing": 0.1, "drop_worst": 0.2, "drop_after": 1}


@pytest.mark.parametrize("batches", [None, 1, 2])
def test_oneref_finds_box_and_segment_by_products_of_patches_with_the_phrase(batches) -> None:
    """Xiao et al. (2024), in a tower of BEiT-3's kind: shared attention, and norms and MLPs of each modality; or as in
    their code, where all layers are apart and the worst hidden words are left out after a while. With copied weights,
    boxes, similarities, predictions of patches and relations, the loss of words and all gradients of the latter were
    those of BEiT3ForGrounding in linhuixiao/OneRef at 882ed1b, to 9e-16 and 2e-15 in float64.
    """
    batch, theirs = image_text(), batches is not None
    config = OneRefConfig(vocabulary=VOCABULARY, width=32, depth=2, heads=2, **(AS_THE_AUTHORS if theirs else {}))
    model = random_weights(config.build({**GRIDS, "text": batch.text_mask.grid}, seed=1)).requires_grad_(True)
    model.batches.fill_(batches or 0)
    tower, place, scale = model.tower, model.tokens.positions(32), 1 if theirs else 32

    def split_layers(x: Tensor, layer: nn.Module) -> Tensor:
        parts = list(zip((x[:17], x[17:]), (layer.image, layer.text), strict=True))
        asked = torch.cat([linear(normed(own, part.norm1), part.qkv) for own, part in parts])
        seen = heads_of(*asked.chunk(3, dim=1), layer.heads)
        made = []
        for (own, part), one in zip(parts, (seen[:17], seen[17:]), strict=True):
            own = own + linear(normed(one, part.attended), part.out)
            inner = gelu(linear(normed(own, part.norm2), part.up))
            made.append(own + linear(normed(inner, part.middle), part.down))
        return torch.cat(made)

    def shared_attention(x: Tensor, layer: nn.Module) -> Tensor:
        x = x + attention(both(x, layer.norm1), layer.attention)
        inner = both(x, layer.norm2)
        return x + torch.cat((mlp(inner[:17], layer.mlps[0]), mlp(inner[17:], layer.mlps[1])))

    def smoothed(logits: Tensor, label: Tensor) -> Tensor:
        """The divergence of what is likely from labels of which 0.1 is spread over all other ids."""
        wanted = torch.full_like(logits, 0.1 / (VOCABULARY - 1)).scatter(1, label.long()[:, None], 0.9)
        return (wanted * (wanted.log() + logits.exp().sum(1, keepdim=True).log() - logits)).sum(1)

    def both(x: Tensor, norms: nn.Module) -> Tensor:
        return torch.cat((normed(x[:17], norms.of[0]), normed(x[17:], norms.of[1])))

    def unit(x: Tensor) -> Tensor:
        return x / x.square().sum(-1, keepdim=True).sqrt()

    def layers(x: Tensor, three: nn.Sequential) -> Tensor:
        return linear(linear(linear(x, three[0]).relu(), three[2]).relu(), three[4])

    def area(logits: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        likely, true = 1 / (1 + (-logits).exp()), true.double()
        focal = -(
            0.25 * true * (1 - likely) ** 2 * likely.log() + 0.75 * (1 - true) * likely**2 * (1 - likely).log()
        ).mean()
        return focal, 1 - (2 * (likely * true).sum() + 1) / (likely.sum() + true.sum() + 1)

    found: dict[str, list[Tensor]] = {}

    def add(name: str, *values: Tensor) -> None:
        found.setdefault(name, []).extend(values)

    for row in range(3):
        n = int(batch.text.valid[row].sum())
        patches = model.tokens.inputs(model.tokens.split(batch.image[row, None]))[0]
        x = linear(patches, tower.embed) if theirs else normed(linear(patches, tower.embed[0]), tower.embed[1])
        hidden = batch.image_mask.masked[row]
        x = torch.stack([tower.mask_token if hidden[i] else x[i] for i in range(16)])
        ids = batch.inputs[row, :n]
        told = tower.ids.ids.weight[ids] + tower.ids.places.weight[:n]
        if theirs:
            x = torch.cat((torch.cat((tower.class_token[None], x)) + tower.place, told))
        else:
            told = normed(told, tower.ids.norm) + tower.kind[1]
            x = torch.cat((tower.class_token[None] + tower.kind[0], x + place + tower.kind[0], told))
        for layer in tower.blocks:
            x = split_layers(x, layer) if theirs else shared_attention(x, layer)
        x = both(x, tower.norm)
        seen, phrase, read = x[1:17], x[17], x[17:]
        product = unit(linear(seen, model.of_patch)) * unit(linear(phrase, model.of_phrase))
        alike = product.sum(1) if theirs else product.sum(1) * model.scale
        whole = (alike.exp() / alike.exp().sum()) @ linear(seen, model.source)
        cx, cy, w, h = layers(whole, model.box).sigmoid()
        hidden_ids = batch.text_mask.masked[row].nonzero()[:, 0]
        label = batch.text.tokens[row, hidden_ids]
        if theirs:
            add("hidden words", *smoothed(linear(read[hidden_ids], model.word), label))
        else:
            add("hidden words", *nats(words(read[hidden_ids], model.word, tower.ids.ids.weight), label))
        made = linear(unit(product[hidden]) if theirs else 32 * product[hidden], model.patch)
        add("hidden patches", *(made - whitened(patches[hidden])).square().mean(1))
        if batch.box[row].isnan().any():
            continue
        x0, y0, x1, y1 = batch.box[row].double()
        add("box", ((x0 + x1) / 2 - cx).abs() + ((y0 + y1) / 2 - cy).abs() + (x1 - x0 - w).abs() + (y1 - y0 - h).abs())
        left, top, right, bottom = cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2
        shared = (right.minimum(x1) - left.maximum(x0)).clamp_min(0)
        shared = shared * (bottom.minimum(y1) - top.maximum(y0)).clamp_min(0)
        either = (x1 - x0) * (y1 - y0) + w * h - shared
        around = (right.maximum(x1) - left.minimum(x0)) * (bottom.maximum(y1) - top.minimum(y0))
        add("overlap", 1 - shared / either + (around - either) / around)
        inside = [x0 <= (i % 4 + 0.5) / 4 < x1 and y0 <= (i // 4 + 0.5) / 4 < y1 for i in range(16)]
        drawn = torch.stack([batch.segment[row, 8 * (i // 4) :][:8, 8 * (i % 4) :][:, :8].flatten() for i in range(16)])
        for name, made, true in (
            ("patches of the box", alike if theirs else alike + model.near_bias, torch.tensor(inside)),
            ("segment", linear(scale * product, model.segment), drawn),
        ):
            focal, dice = area(made.flatten(), true.flatten())
            add(f"{name}, focal", focal)
            add(f"{name}, dice", dice)
        sides = [(1 / (4 * side).clamp_min(1)).float().double() for side in (x1 - x0, y1 - y0)]
        true = torch.stack(
            [torch.stack(((i % 4 - 2 * (x0 + x1)) / 4, (i // 4 - 2 * (y0 + y1)) / 4, *sides)) for i in range(16)]
        )
        add("relations", (layers(scale * product, model.relation) - true).abs().sum(1).mean())
    if batches == 2:
        every = sorted(found["hidden words"], key=Tensor.item)
        found["hidden words"] = every[: int(len(every) * 0.8)]
        assert len(found["hidden words"]) < len(every)
    expected = {name: torch.stack(each).mean() for name, each in found.items()}
    shares = {name: 20 if "focal" in name else 2 if "dice" in name else 1 for name in expected}
    losses = model(batch)
    assert {name: mean.item() for name, mean in losses.means().items()} == pytest.approx(
        {name: one.item() for name, one in expected.items()}, rel=1e-10
    )
    check_parity(model, losses.loss(), torch.stack([shares[name] * one for name, one in expected.items()]).sum())
    assert int(model.batches) == (batches + 1 if theirs else 0)
