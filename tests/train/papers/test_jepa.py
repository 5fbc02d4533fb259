"""Joint-embedding prediction beside transformers and plain loops; its teacher in steps, checkpoints and resumes."""

from contextlib import closing
from dataclasses import asdict, replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from maskstream.pipelines import Loader, Split, mix
from maskstream.pipelines.masks import Curriculum, Linear, MultiBlock, Piecewise, Random, TargetBlocks
from maskstream.pipelines.masks.core import Draw, TokenGrid
from maskstream.pipelines.masks.patterns.padded import Padded
from maskstream.pipelines.modalities.audio.batch import AudioBatch
from maskstream.pipelines.modalities.image.batch import IMAGENET_MEAN, IMAGENET_STD, ImageBatch
from maskstream.pipelines.modalities.video.batch import VideoBatch
from maskstream.pipelines.stream.rng import Place
from maskstream.preprocess import make_shards
from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.errors import ResumeError
from maskstream.train import Trainer, load_model
from maskstream.train.core.weights import FileSum
from maskstream.train.papers.jepa.ajepa import SpectrogramJepaConfig
from maskstream.train.papers.jepa.ijepa import ImageJepaConfig
from maskstream.train.papers.jepa.vjepa import VideoJepaConfig
from maskstream.train.papers.jepa.vjepa21 import DenseJepaConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.every_modality import write_split
from ..test_every_recipe import CUTS

GRID = TokenGrid(axes=("h", "w"), shape=(6, 6), patch=(4, 4))
SMALL = ImageJepaConfig(width=32, depth=3, heads=4, predictor_width=16, predictor_depth=2, predictor_heads=2)


def model_of(config=SMALL, seed=0):
    """The model in float64, with random biases and norms too."""
    return spread(config.build({"image": GRID}, seed=seed), seed)


def spread(model, seed):
    """The model in float64, all of its parameters drawn anew."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model.double()


def batch_of(mask, samples=3):
    draws = [Draw.of(0, 0, f"sample {i}", 0, Place(), cues=Draw(rng=None).cues) for i in range(samples)]
    image = torch.randint(256, (samples, 24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    keys = [str(i) for i in range(samples)]
    return ImageBatch(key=keys, label=torch.zeros(samples), image=image, mask=mask.draw(GRID, draws))


def transformers_encoder(model):
    """The model's encoder as an IJepaModel of transformers with the same weights."""
    transformers = pytest.importorskip("transformers")
    c, channels = model.config, model.tokens.n_inputs // 16
    config = transformers.IJepaConfig(
        hidden_size=c.width,
        num_hidden_layers=c.depth,
        num_attention_heads=c.heads,
        intermediate_size=c.width * c.mlp_ratio,
        image_size=24,
        patch_size=4,
        num_channels=channels,
        layer_norm_eps=c.eps,
        attn_implementation="sdpa",
    )
    theirs = transformers.IJepaModel(config).double().eval()
    ours, own = model.encoder, {}
    own["embeddings.position_embeddings"] = ours.positions()[None].double()
    weight = ours.embed[0].weight.view(c.width, 4, 4, channels).permute(0, 3, 1, 2)
    own |= {
        f"embeddings.patch_embeddings.projection.{n}": p for n, p in (("weight", weight), ("bias", ours.embed[0].bias))
    }
    for i, block in enumerate(ours.stacks[0].blocks):
        parts = zip("qkv", block.attention.qkv.weight.chunk(3), strict=True)
        own |= {f"layers.{i}.attention.{n}_proj.weight": p for n, p in parts}
        biases = {"q": block.attention.q_bias, "k": torch.randn(c.width), "v": block.attention.v_bias}
        own |= {f"layers.{i}.attention.{n}_proj.bias": p for n, p in biases.items()}
        names = {"attention.o_proj": block.attention.out, "mlp.fc1": block.mlp.up, "mlp.fc2": block.mlp.down}
        names |= {"layernorm_before": block.norm1.of[0], "layernorm_after": block.norm2.of[0]}
        own |= {f"layers.{i}.{n}.{p}": getattr(part, p) for n, part in names.items() for p in ("weight", "bias")}
    own |= {f"layernorm.{p}": getattr(ours.stacks[0].norm.of[0], p) for p in ("weight", "bias")}
    theirs.load_state_dict(own)
    return theirs


def test_the_encoder_is_that_of_transformers():
    model, batch = model_of(), batch_of(Random(ratio=0.5))
    theirs = transformers_encoder(model)
    model.teacher.load_state_dict(model.encoder.state_dict())
    pixels = (batch.image.double() / 255 - torch.tensor(IMAGENET_MEAN).double()) / torch.tensor(IMAGENET_STD).double()
    model.tokens.mean = (torch.tensor(IMAGENET_MEAN).double() * 255).repeat(16)
    model.tokens.std = (torch.tensor(IMAGENET_STD).double() * 255).repeat(16)
    with torch.no_grad():
        expected = theirs(pixels.permute(0, 3, 1, 2)).last_hidden_state
        found = model.token_features(batch)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-9


SOUNDS = TokenGrid(axes=("time", "freq"), shape=(6, 6), patch=(4, 4))
SMALL_SOUNDS = SpectrogramJepaConfig(
    **{one: getattr(SMALL, one) for one in ("width", "depth", "heads")},
    **{f"predictor_{one}": getattr(SMALL, f"predictor_{one}") for one in ("width", "depth", "heads")},
    distance="l2",
)


def sounds_of(mask, progress):
    """Three spectrograms in a batch, masked at a progress of the run."""
    draws = [Draw.of(0, 0, f"sample {i}", 0, Place(progress=progress), cues=Draw(rng=None).cues) for i in range(3)]
    values = torch.randn(3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    keys, nothing = [str(i) for i in range(3)], torch.zeros(3)
    return AudioBatch(
        key=keys, label=nothing, waveform=nothing[:, None, None], length=nothing, spectrogram=values,
        mask=mask.draw(SOUNDS, draws), start_s=nothing,
    )  # fmt: skip


def test_the_encoder_of_spectrograms_is_that_of_transformers():
    model, batch = spread(SMALL_SOUNDS.build({"audio": SOUNDS}), 0), sounds_of(Random(ratio=0.5), 0.0)
    theirs = transformers_encoder(model)
    model.teacher.load_state_dict(model.encoder.state_dict())
    with torch.no_grad():
        expected = theirs(batch.spectrogram[:, None]).last_hidden_state
        found = model.token_features(batch)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-9


CLIP = TokenGrid(axes=("t", "h", "w"), shape=(3, 4, 4), patch=(2, 4, 4))


def rotary_names(block, layer, of):
    """The weights of a block by the names of transformers."""
    own = {}
    for kind in ("weight", "bias"):
        parts = zip(("query", "key", "value"), getattr(block.attention.qkv, kind).chunk(3), strict=True)
        own |= {f"{of}.layer.{layer}.attention.{name}.{kind}": part for name, part in parts}
        modules = {"attention.proj": block.attention.out, "mlp.fc1": block.mlp.up, "mlp.fc2": block.mlp.down}
        modules |= {"norm1": block.norm1.of[0], "norm2": block.norm2.of[0]}
        own |= {f"{of}.layer.{layer}.{name}.{kind}": getattr(part, kind) for name, part in modules.items()}
    return own


def test_encoder_and_predictor_of_clips_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    c = VideoJepaConfig(
        width=64, depth=2, heads=4, predictor_width=40, predictor_depth=2, predictor_heads=2, masks=2, distance="l1"
    )
    model = spread(c.build({"video": CLIP}), 2)
    config = transformers.VJEPA2Config(
        patch_size=4, crop_size=16, frames_per_clip=6, tubelet_size=2, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=4, mlp_ratio=4, pred_hidden_size=40, pred_num_hidden_layers=2, pred_num_attention_heads=2,
        pred_num_mask_tokens=2, attn_implementation="sdpa",
    )  # fmt: skip
    theirs = transformers.VJEPA2Model(config).double().eval()
    own = {}
    for of, part in (("encoder", model.encoder), ("predictor", model.predictor)):
        for i, block in enumerate(part.stack.blocks):
            own |= rotary_names(block, i, of)
        own |= {f"{of}.layernorm.{n}": getattr(part.stack.norm.of[0], n) for n in ("weight", "bias")}
    proj, e = model.encoder.embed, "encoder.embeddings.patch_embeddings.proj"
    own |= {f"{e}.weight": proj.weight.view(64, 3, 2, 4, 4), f"{e}.bias": proj.bias}
    for name, part in (("embeddings.predictor_embeddings", model.predictor.bridge), ("proj", model.predictor.head)):
        own |= {f"predictor.{name}.{n}": getattr(part, n) for n in ("weight", "bias")}
    own["predictor.embeddings.mask_tokens"] = model.predictor.mask_tokens[:, None, None]
    theirs.load_state_dict(own)
    pixels = torch.randn(2, 6, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cubes = pixels.view(2, 3, 2, 3, 4, 4, 4, 4).permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(2, 48, 96)
    order = torch.stack([torch.randperm(48, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    seen, asked = order[:, :20].sort(dim=1).values, order[:, 25:].sort(dim=1).values
    with torch.no_grad():
        index = torch.arange(48).expand(2, -1)
        whole = model.encoder(cubes, index)
        given = theirs(pixels, context_mask=[seen], target_mask=[asked])
        assert (whole - given.last_hidden_state).abs().max() < 1e-9
        assert whole.std() > 0.1
        context = whole.gather(1, seen[..., None].expand(-1, -1, 64))
        made = model.predictor([context], [seen], [asked])[0]
    expected = given.predictor_output.last_hidden_state  # by the token of the second mask, for all rows
    assert (made[1] - expected[1]).abs().max() < 1e-9
    assert (made[0] - expected[0]).abs().max() > 1e-3, "the first mask has a token of its own"


def test_the_two_masks_of_a_clip_count_alike_and_its_teacher_runs_once(tmp_path):
    recipe = chosen_recipe("vjepa2-tiny", CUTS["vjepa2"])
    loader = recipe.loader(write_split("video", tmp_path / "video"), steps=1, device="cpu", threads=1)
    batch = next(iter(loader))
    loader.close()
    model = recipe.build()
    assert torch.equal(batch.video[0], batch.video[1])
    rows = []
    with torch.no_grad():
        made, known = model.predict(batch.video, batch.mask), model.targets(batch.video)
        for i, (target, count) in enumerate(zip(batch.mask.target, batch.mask.n_target.tolist(), strict=True)):
            rows.append((made[i, :count] - known[i, target[:count]]).abs().mean())
        assert abs(model.loss(batch).loss() - torch.stack(rows).mean()) < 1e-5
    with pytest.raises(ValueError, match="views that differ only in their masks"):
        replace(recipe, data=replace(recipe.data, views=1))


def plain_block(x, block, heads):
    """A pre-norm transformer block of one sequence (L, D), head by head."""
    y = block.norm1.of[0](x)
    q, k, v = (
        y @ w.T + b
        for w, b in zip(
            block.attention.qkv.weight.chunk(3), (block.attention.q_bias, 0.0, block.attention.v_bias), strict=True
        )
    )
    made = []
    for qh, kh, vh in zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), strict=True):
        made.append(torch.softmax(qh @ kh.T / kh.shape[1] ** 0.5, dim=1) @ vh)
    x = x + block.attention.out(torch.cat(made, dim=1))
    return x + block.mlp.down(F.gelu(block.mlp.up(block.norm2.of[0](x))))


def plain_encoder(encoder, inputs, tokens, heads):
    x = encoder.embed[0](inputs[tokens]) + encoder.positions()[tokens]
    for block in encoder.stacks[0].blocks:
        x = plain_block(x, block, heads)
    return encoder.stacks[0].norm.of[0](x)


def plain_places(grid, width):
    """The places of V-JEPA by its formula, token by token: a third of the width each, in whole pairs, then cut."""
    own, made = 2 * -(-width // 6), []
    for place in np.ndindex(*grid):
        angles = [np.array([one / 10000 ** (2 * i / own) for i in range(own // 2)]) for one in place]
        made.append(np.concatenate([part(angle) for angle in angles for part in (np.sin, np.cos)])[:width])
    return torch.from_numpy(np.array(made))


def test_v_jepa_adds_places_and_has_a_mask_token_for_each_mask():
    """Beside plain loops, whose blocks have no turns. So is the authors' own code (docs/papers/v-jepa-2.md)."""
    c = VideoJepaConfig(
        width=32, depth=2, heads=2, predictor_width=20, predictor_depth=2, predictor_heads=2, masks=2, places="added"
    )
    model = spread(c.build({"video": CLIP}), 4)
    rng = torch.Generator().manual_seed(0)
    cubes = torch.randn(2, 48, 96, dtype=torch.float64, generator=rng)
    order = torch.stack([torch.randperm(48, generator=rng) for _ in range(2)])
    seen, asked = order[:, :20], order[:, 25:]
    with torch.no_grad():
        context = model.encoder(cubes.gather(1, seen[..., None].expand(-1, -1, 96)), seen)
        made = model.predictor([context], [seen], [asked])[0]
        for row in range(2):
            x = model.encoder.embed(cubes[row, seen[row]]) + plain_places(CLIP.shape, 32)[seen[row]]
            for block in model.encoder.stack.blocks:
                x = plain_block(x, block, 2)
            x = model.encoder.stack.norm.of[0](x)
            assert (x - context[row]).abs().max() < 1e-6, "places are float32"
            places, p = plain_places(CLIP.shape, 20), model.predictor
            x = torch.cat((p.bridge(x) + places[seen[row]], p.mask_tokens[row] + places[asked[row]]))
            for block in p.stack.blocks:
                x = plain_block(x, block, 2)
            expected = p.head(p.stack.norm.of[0](x[20:]))
            assert (expected - made[row]).abs().max() < 1e-6
    assert made.std() > 0.1


def plain_loss(model, batch):
    """The loss by the paper's section 3, one sample and one block after the other, without padding."""
    c, p = model.config, model.predictor
    errors = []
    for i in range(len(batch)):
        inputs = model.token_inputs(batch)[i].double()
        context = (~batch.mask.masked[i]).nonzero()[:, 0]
        with torch.no_grad():
            wanted = plain_encoder(model.teacher, inputs, torch.arange(GRID.size), c.heads)
            wanted = (wanted - wanted.mean(1, keepdim=True)) / (
                wanted.var(1, unbiased=False, keepdim=True) + 1e-5
            ).sqrt()
        seen = p.bridge(plain_encoder(model.encoder, inputs, context, c.heads)) + p.positions()[context]
        for block in batch.mask.blocks[i]:
            x = torch.cat((seen, p.mask_token + p.positions()[block]))
            for layer in p.stack.blocks:
                x = plain_block(x, layer, c.predictor_heads)
            made = p.head[0](p.stack.norm.of[0](x[len(context) :]))
            apart = (made - wanted[block]).abs()
            huber = torch.where(apart < 1, 0.5 * apart.square(), apart - 0.5)
            errors.append({"smooth l1": huber, "l1": apart, "l2": apart.square()}[c.distance].mean(1))
    return torch.cat(errors).mean()


def check_loss(model, batch):
    """Loss and gradients are those of plain loops."""
    assert len(set(batch.mask.n_visible.tolist())) > 1, "contexts of several lengths"
    found, expected = model.loss(batch).loss(), plain_loss(model, batch)
    assert abs(found - expected) < 1e-9
    names = [name for name, _ in model.named_parameters() if not name.startswith("teacher")]
    ours = torch.autograd.grad(found, [model.get_parameter(n) for n in names])
    theirs = torch.autograd.grad(expected, [model.get_parameter(n) for n in names])
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-9, name


@pytest.mark.parametrize("distance", ["smooth l1", "l1", "l2"])
def test_loss_and_gradients_are_those_of_plain_loops(distance):
    check_loss(model_of(replace(SMALL, distance=distance)), batch_of(Padded(mask=TargetBlocks(least=3))))


@pytest.mark.parametrize(("progress", "blocks"), [(0.0, 4), (1.0, 3)])
def test_a_jepas_loss_and_gradients_are_those_of_plain_loops_at_both_ends_of_its_curriculum(progress, blocks):
    batch = sounds_of(Padded(mask=Curriculum()), progress)
    assert batch.mask.blocks.shape[1] == blocks
    check_loss(spread(SMALL_SOUNDS.build({"audio": SOUNDS}), 3), batch)


def test_the_teacher_gets_no_gradient_and_drops_nothing():
    model = chosen_recipe("ijepa-tiny", CUTS["ijepa"]).build()
    assert all(not p.requires_grad for p in model.teacher.parameters())
    assert all(p.requires_grad for p in model.encoder.parameters())
    assert model.train().encoder.training
    assert not model.teacher.training


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write_split("image", tmp_path_factory.mktemp("jepa") / "image")


def trained(split, out, until=None, *, steps=6, momentum=None):
    recipe = chosen_recipe("ijepa-tiny", CUTS["ijepa"])
    if momentum is not None:
        recipe = replace(recipe, model=replace(recipe.model, momentum=momentum))
    loader = recipe.loader(split, steps=steps, device="cpu", threads=1)
    trainer = Trainer(recipe, loader, out, steps=steps, progress=False, save_every=2)
    trainer.run(until)
    loader.close()
    return trainer


def test_the_teacher_is_the_moving_average_by_the_law_of_momentum(split, tmp_path):
    schedule = Linear(start=0.5, end=0.9)
    trainer = trained(split, tmp_path, 0, momentum=schedule)
    expected = {n: p.detach().clone() for n, p in trainer.model.teacher.named_parameters()}
    for step in range(6):
        trainer = trained(split, tmp_path, step + 1, momentum=schedule)
        share = 0.5 + 0.4 * step / 6
        for name, own in trainer.model.encoder.named_parameters():
            expected[name] = share * expected[name] + (1 - share) * own.detach()
    for name, own in trainer.model.teacher.named_parameters():
        assert (own - expected[name]).abs().max() < 1e-6, name
    assert any(
        (p - q).abs().max() > 1e-6
        for p, q in zip(trainer.model.teacher.parameters(), trainer.model.encoder.parameters(), strict=True)
    )


def test_a_checkpoint_without_its_teacher_is_refused_by_name(split, tmp_path):
    trained(split, tmp_path, 2)
    checkpoint = tmp_path / "checkpoints/step-00000002"
    weights = load_file(checkpoint / "model.safetensors")
    save_file({n: w for n, w in weights.items() if not n.startswith("teacher.")}, checkpoint / "model.safetensors")
    state = read_checksummed((checkpoint / "state.json").read_bytes())
    state["files"]["model.safetensors"] = asdict(FileSum.of((checkpoint / "model.safetensors").read_bytes()))
    (checkpoint / "state.json").write_bytes(add_checksum(state))
    with pytest.raises(ResumeError, match="has no teacher"):
        trained(split, tmp_path)


@pytest.mark.slow
def test_one_model_of_pictures_and_videos_whose_weights_follow_a_law_goes_on_bit_by_bit(tmp_path):
    """V-JEPA 2's mixture: a picture is a clip that repeats it."""
    steps, batch_size = 8, 4
    (tmp_path / "raw").mkdir()
    for i in range(6):
        smooth = np.random.default_rng(i).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"raw/{i}.png"), cv2.resize(smooth, (96, 80), interpolation=cv2.INTER_CUBIC))
    make_shards("still-folder", tmp_path / "raw", tmp_path / "stills", workers=0, as_is=True)
    where = [str(tmp_path / "stills/train"), write_split("video", tmp_path / "video")]
    recipe = chosen_recipe("vjepa2-tiny", CUTS["vjepa2"])
    schedules = (Linear(start=1.0, end=0.0), Linear(start=0.0, end=1.0))

    def trained(out, until=None):
        parts, seen = [recipe.data.source(Split.open(one, "video", seed=0)) for one in where], []
        mixture = mix([*zip(parts, schedules, strict=True)], batches=4)
        with closing(Loader(mixture, batch_size=batch_size, steps=steps, threads=1, device="cpu")) as loader:
            trainer = Trainer(recipe, loader, out, steps=steps, progress=False)
            trainer.model.register_forward_pre_hook(lambda model, given: seen.append(given[0].key[::2]))
            trainer.run(until)
        return [sum("png" in key for key in keys) for keys in seen]

    stills = trained(tmp_path / "whole")
    assert (len(stills), sum(stills)) == (steps, steps * batch_size // 2), "schedules that cross give each a half"
    assert (stills[0], stills[-1]) == (batch_size, 0)
    for until in (3, 5, None):
        trained(tmp_path / "parts", until)
    one, other = (load_model(tmp_path / n / "model.safetensors").state_dict() for n in ("whole", "parts"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def turned_in_pairs(x, places, grid):
    """The channels of heads (heads, L, d) turned by the time, row and column of their tokens, as complex numbers."""
    own = x.shape[-1] // len(grid) // 2
    parts = []
    for axis, place in enumerate(np.unravel_index(places.numpy(), grid)):
        plane = torch.view_as_complex(
            x[..., 2 * own * axis : 2 * own * (axis + 1)].unflatten(-1, (own, 2)).contiguous()
        )
        angle = torch.from_numpy(place).double()[:, None] * 10000.0 ** (-torch.arange(own).double() / own)
        parts.append(torch.view_as_real(plane * torch.polar(torch.ones_like(angle), angle)).flatten(-2))
    return torch.cat((*parts, x[..., 2 * own * len(grid) :]), dim=-1)


def plain_turned_block(x, block, heads, places):
    q, k, v = (
        one.unflatten(1, (heads, -1)).transpose(0, 1) for one in block.attention.qkv(block.norm1.of[0](x)).chunk(3, 1)
    )
    q, k = (turned_in_pairs(one, places, CLIP.shape) for one in (q, k))
    seen = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1) @ v
    x = x + block.attention.out(seen.transpose(0, 1).flatten(1))
    return x + block.mlp.down(F.gelu(block.mlp.up(block.norm2.of[0](x))))


def plain_levels(encoder, cubes, places, heads, every):
    """What every `every`-th block makes of tokens, with norms of their own."""
    x, made, norms = encoder.embed(cubes), [], [*encoder.norms, encoder.stack.norm]
    for number, block in enumerate(encoder.stack.blocks):
        x = plain_turned_block(x, block, heads, places)
        if number % every == every - 1:
            made.append(norms[len(made)].of[0](x))
    return made


def test_v_jepa_2_1_predicts_visible_tokens_too_by_their_distance():
    """Beside plain loops over rows. So is the authors' own code (docs/papers/v-jepa-2.md)."""
    c = DenseJepaConfig(
        width=32, depth=4, heads=2, predictor_width=28, predictor_depth=2, predictor_heads=2, masks=2, levels=2,
        distance="l1", context=Piecewise(points=((0.0, 0.0), (1.0, 0.5))),
    )  # fmt: skip
    model = spread(c.build({"video": CLIP}), 5)
    rng = torch.Generator().manual_seed(0)
    video = torch.randint(256, (1, 6, 16, 16, 3), dtype=torch.uint8, generator=rng).expand(2, -1, -1, -1, -1)
    draws = [Draw.of(0, 0, f"sample {i}", 0, Place(), cues=Draw(rng=None).cues) for i in range(2)]
    mask = Padded(mask=MultiBlock(blocks=2, scale=(0.3, 0.6))).draw(CLIP, draws)
    assert len(set(mask.n_visible.tolist())) > 1, "rows of several lengths"
    batch = VideoBatch(key=["a", "b"], label=torch.zeros(2), video=video, mask=mask, flow=None, pts_s=torch.zeros(2, 6))
    model.follow(0, 2)
    assert float(model.share) == 0.25
    own, p, hidden, context = model.tokens.inputs(model.tokens.split(video)).double(), model.predictor, [], []
    for row in range(2):
        seen, asked = (~mask.masked[row]).nonzero()[:, 0], mask.target[row, : int(mask.n_target[row])]
        with torch.no_grad():
            known = plain_levels(model.teacher, own[row], torch.arange(48), 2, 2)
            known = torch.cat([F.layer_norm(one, (32,)) for one in known], dim=1)
        read = torch.cat(plain_levels(model.encoder, own[row, seen], seen, 2, 2), dim=1)
        x = torch.cat((p.bridge(read), p.mask_tokens[row].expand(len(asked), -1)))
        for block in p.stack.blocks:
            x = plain_turned_block(x, block, 2, torch.cat((seen, asked)))
        x = p.stack.norm.of[0](x)
        hidden.append((p.head(x[len(seen) :]) - known[asked]).abs().mean())
        at = np.stack(np.unravel_index(np.arange(48), CLIP.shape), axis=1)
        far = torch.tensor([min(np.linalg.norm(at[i] - at[j]) for j in asked) for i in seen])
        context.append(((p.own_head(x[: len(seen)]) - known[seen]).abs().mean(1) / far.sqrt()).mean())
    found = model.loss(batch).loss()
    expected = torch.stack(hidden).mean() + 0.25 * torch.stack(context).mean()
    assert abs(found - expected) < 1e-6, "distances are float32"
    names = [name for name, _ in model.named_parameters() if not name.startswith("teacher")]
    ours, theirs = (torch.autograd.grad(one, [model.get_parameter(n) for n in names]) for one in (found, expected))
    for name, one, other in zip(names, ours, theirs, strict=True):
        assert (one - other).abs().max() < 1e-6, name
    last = plain_levels(model.teacher, own[0], torch.arange(48), 2, 2)[-1]
    assert (model.token_features(batch)[0] - last).abs().max() < 1e-9


@pytest.mark.parametrize("places", ["added", "turned"])
def test_padding_of_clips_is_not_computed_and_changes_nothing(places, monkeypatch):
    sizes = {"width": 32, "heads": 2, "predictor_width": 24, "predictor_depth": 2, "predictor_heads": 2}
    model = spread(VideoJepaConfig(**sizes, depth=2, masks=2, places=places).build({"video": CLIP}), 6)
    rng = torch.Generator().manual_seed(0)
    video = torch.randint(256, (2, 6, 16, 16, 3), dtype=torch.uint8, generator=rng)
    draws = [Draw.of(0, 0, f"sample {i}", 0, Place(), cues=Draw(rng=None).cues) for i in range(2)]
    mask = Padded(mask=MultiBlock(blocks=2, scale=(0.3, 0.6))).draw(CLIP, draws)
    batch = VideoBatch(key=["a", "b"], label=torch.zeros(2), video=video, mask=mask, flow=None, pts_s=torch.zeros(2, 6))
    read = []
    for block in (model.encoder.stack.blocks[0], model.predictor.stack.blocks[0]):
        block.mlp.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape[:-1].numel()))
    parameters = [p for name, p in model.named_parameters() if not name.startswith("teacher")]
    found = model.loss(batch).loss()
    assert read == [int(mask.n_visible.sum()), 2 * 48], "each token of a clip is seen or asked"
    gradients = torch.autograd.grad(found, parameters)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    padded = model.loss(batch).loss()
    assert read[2:] == [mask.visible.numel(), mask.visible.numel() + mask.target.numel()]
    assert abs(found - padded) < 1e-9
    for one, other in zip(gradients, torch.autograd.grad(padded, parameters), strict=True):
        assert (one - other).abs().max() < 1e-9
