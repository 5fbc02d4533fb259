"""Every recipe builds from its defaults and, with its sizes cut and its method as it is, trains on a small split."""

import json
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.train import RECIPES, Trainer, load_model, named_recipe, read_metrics, train
from maskstream.train.core.recipe import Recipe
from maskstream.train.recipes import chosen_recipe

from ..pipelines.small_media import SAMPLES

CLIP = ("clip.frames=4", "clip.size=32", "data.patch=8", "batch_size=2")
SIZES = tuple(f"model.{part}" for part in ("width=32", "depth=1", "heads=2"))
DECODER = tuple(f"model.decoder_{part}" for part in ("width=16", "depth=1", "heads=2"))
SPECTROGRAM = ("seconds=0.64",)
VOXELS = ("select.points=100", "batch_size=2", "model.width=24", "model.depth=2", "model.heads=2")
NARROW = ("model.decoder_width=12", "model.decoder_depth=2", "model.decoder_heads=2")
GROUPS = ("select.points=100", "tokens.groups=8", "tokens.size=6", "batch_size=2")
GRAPH = tuple(f"model.{part}" for part in ("width=16", "hidden=16", "encoder_rounds=1", "decoder_rounds=1"))
UNET = tuple(f"model.{part}" for part in ("n_samples=2048", "n_fft=128", "hop=64", "width=2", "growth=2", "layers=1"))
TEXT = ("model.width=32", "model.depth=1", "model.heads=2", "data.length=32", "batch_size=2")
PAIRS = (
    *("data.size=32", "data.patch=8", "data.length=16", "batch_size=2", *SIZES),
    *("model.text_depth=1", "model.fusion_depth=1"),
)
QUANTISER = (
    "quantiser.levels=[4,8]",
    "model.quantiser.stem=4",
    "model.quantiser.widths=[8,16]",
    "quantiser.rounds=1",
)
CUTS = {
    "videomae": (*CLIP, *SIZES, *DECODER),
    "sparse": (*CLIP, *SIZES, *DECODER),
    "mgmae": (*CLIP, *SIZES, *DECODER),
    "videomae2": (*CLIP, *SIZES, *DECODER),
    "audiomae": (*SPECTROGRAM, *SIZES, *DECODER, "batch_size=2"),
    "ca": ("clip.seconds=0.128", "batch_size=2", *UNET),
    "maskvit": (*CLIP, *SIZES, "model.vq=null", *QUANTISER),
    "maest": (*CLIP, *SIZES, *DECODER),
    "siammae": ("clip.size=32", "data.patch=8", "batch_size=2", "mask.ratio=0.9", *SIZES, *DECODER),
    "cropmae": ("data.size=32", "data.patch=8", "batch_size=2", "mask.ratio=0.9", *SIZES, *DECODER),
    "dmae": (
        *("data.size=32", "data.patch=8", "batch_size=2", "model.teacher=null", "model.block=0"),
        *SIZES,
        *DECODER,
    ),
    "mae": ("data.size=32", "data.patch=8", "batch_size=2", *SIZES, *DECODER),
    "avsiam": ("data.seconds=0.64", "clip.size=32", "data.patch=8", "batch_size=5", *SIZES, *DECODER),
    "diffmavil": ("data.seconds=0.64", *CLIP, "batch_size=1", "token_budget=40", *SIZES, *DECODER),
    "fastdit3d": ("tokens.resolution=24", *VOXELS, *NARROW, "model.window=2"),
    "pointmae": (*GROUPS, "model.width=24", "model.depth=1", "model.heads=2", "model.decoder_depth=1"),
    "m3ae": (*PAIRS, *DECODER, "model.image_layer=1"),
    "vqa": PAIRS,
    "spiking": (
        *("data.size=32", "data.patch=8", "batch_size=2", "model.width=32", "model.depths=[1,1]", "model.heads=[2,2]"),
        "model.labels=10",
    ),
    "oneref": PAIRS[:-2],
    "medthink": (*PAIRS[:-2], "model.decoder_depth=1", "model.longest=16", "data.target_length=16"),
    "bert": TEXT,
    "mosaicbert": TEXT,
    "mrd": TEXT,
    "ptw": TEXT,
    "pmlm": TEXT,
    "mdlm": TEXT,
    "modernbert": (*TEXT, "model.hidden=32", "model.window=8"),
    "retromae": TEXT,
    "roar": ("data.length=32", "batch_size=2", "model.width=24"),
    "lmd": (*("data.size=32", "data.patch=16", "batch_size=2", "model.vq=null", *SIZES, *DECODER, *QUANTISER),),
    "mage": (
        *("data.size=32", "data.patch=8", "batch_size=2", "model.vq=null", "model.decoder_depth=1", *SIZES),
        *("model.decoder_heads=2", *QUANTISER),
    ),
    "vq": ("data.size=16", "data.patch=8", "batch_size=2", *QUANTISER),
    "vqframes": ("clip.frames=2", "clip.stride=4", "clip.size=16", "batch_size=2", *QUANTISER),
    "where2imagine": ("clip.frames=2", "clip.size=32", "data.patch=8", "batch_size=2", *SIZES),
    "mpm": ("clip.frames=12", "batch_size=2", *SIZES[1:], "model.width=16", "model.hidden=16"),
    "ijepa": (
        *("data.size=32", "data.patch=4", "batch_size=2", *SIZES),
        *(f"model.predictor_{part}" for part in ("width=16", "depth=1", "heads=2")),
    ),
    "ajepa": (
        *(*SPECTROGRAM, *SIZES, "batch_size=2"),
        *(f"model.predictor_{part}" for part in ("width=16", "depth=1", "heads=2")),
    ),
    "lejepa": (
        *("data.size=32", "data.patch=8", "batch_size=4", *SIZES),
        *("model.hidden=16", "model.embedding=8", "model.slices=8"),
    ),
    "videolejepa": (*CLIP, *SIZES, "batch_size=4", "model.hidden=16", "model.embedding=8", "model.slices=8"),
    "native": (
        *("data.native.patch=8", "model.patch=8", "data.native.most=48", "data.row_tokens=12", "batch_size=2"),
        *SIZES,
        *DECODER,
    ),
    "vjepa": (
        *(*CLIP, "model.width=48", "model.depth=1", "model.heads=4", "model.predictor_width=24"),
        *("model.predictor_depth=1", "model.predictor_heads=2"),
    ),
    "vjepa2": (
        *(*CLIP, "model.width=48", "model.depth=1", "model.heads=4", "model.predictor_width=24"),
        *("model.predictor_depth=1", "model.predictor_heads=2"),
    ),
    "vjepa21": (
        *(*CLIP, "model.width=48", "model.depth=2", "model.levels=2", "model.heads=4", "model.predictor_width=24"),
        *("model.predictor_depth=1", "model.predictor_heads=2"),
    ),
    "salt": (
        *(*CLIP, "model.width=48", "model.depth=1", "model.heads=4", "model.predictor_width=24"),
        *("model.predictor_depth=1", "model.predictor_heads=2", "model.teacher=null", "model.autoencoder.width=24"),
        *("model.autoencoder.depth=1", "model.autoencoder.heads=2"),
    ),
    "meshmask": (*GRAPH, "model.channels=2", "batch_size=2"),
}
"""What makes each family of recipes small: how many pixels, samples, tokens and layers."""


NAMES = json.loads(Path(__file__).with_name("weight_names.json").read_text())
"""Of each recipe, the sum of the names and shapes of its model's weights, as at commit 62c80e9."""


def sum_of_names(model):
    lines = sorted(f"{name} {tuple(one.shape)}" for name, one in model.state_dict().items())
    return sha256("\n".join(lines).encode()).hexdigest()[:12]


def test_every_family_is_cut():
    assert {name.partition("-")[0] for name in RECIPES} == CUTS.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_from_its_defaults_and_takes_two_steps(name, split_of, tmp_path):
    recipe = named_recipe(name)
    assert recipe.name == name
    with torch.device("meta"):
        model = recipe.build()
    assert sum(p.numel() for p in model.parameters()) > 5e4
    assert sum_of_names(model) == NAMES[name], "old runs and exports would not load; if that is meant, change the sum"
    small = chosen_recipe(name, CUTS[name.partition("-")[0]])
    split = split_of(recipe.data.modality)
    steps = small.run_length(split)

    def run(folder, until):
        loader = small.loader(split, steps=steps, device="cpu", threads=1)
        result = Trainer(small, loader, tmp_path / folder, steps=steps, progress=False).run(until)
        assert (result.step, result.steps) == (until, steps)
        return load_model(tmp_path / folder / f"checkpoints/step-{until:08d}/model.safetensors").state_dict()

    weights = run("whole", 2)
    for step in read_metrics(tmp_path / "whole/metrics.jsonl"):
        assert all(torch.isfinite(torch.tensor([step.loss, step.grad_norm, *step.parts.values()])))
    if name.endswith(("-tiny", "-tiny-next")):  # a stop changes nothing
        run("parts", 1)
        resumed = run("parts", 2)
        assert all(torch.equal(value, resumed[key]) for key, value in weights.items())


def test_diffmavil_base_starts_by_its_command_and_sees_every_sample(split_of, tmp_path):
    split = split_of("audiovisual")
    cuts = [word for cut in (*CUTS["diffmavil"], "schedule.epochs=2") for word in ("--set", cut)]
    words = ["train", "diffmavil-base", "--data", str(split), "--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, *cuts])
    assert result.exit_code == 0, result.output
    steps = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    loaded = json.loads((tmp_path / "run/loader_stats.json").read_text())
    assert loaded["samples"] >= 2 * SAMPLES


def test_set_and_print_config_on_the_command_line(tmp_path):
    shown = CliRunner().invoke(app, ["train", "mgmae-tiny", "--set", "model.depth=6", "--print-config"])
    assert shown.exit_code == 0
    whole = json.loads(shown.output)
    mask = whole["data"]["mask"]["mask"]
    assert (whole["model"]["depth"], whole["model"]["mlp_ratio"], mask["ratio"]) == (6, 4, 0.75)
    assert Recipe.from_dict(whole) == chosen_recipe("mgmae-tiny", ["model.depth=6"])
    wrong = CliRunner().invoke(app, ["train", "mgmae-tiny", "--set", "mask.ration=0.8", "--print-config"])
    assert wrong.exit_code != 0
    assert "mask.ratio" in wrong.output + str(wrong.exception)
    with pytest.raises(ValueError, match=r"did you mean 'model\.depth'.* model has .*width, depth, heads"):
        train("mgmae-tiny", tmp_path, tmp_path, set=["model.dept=3"])
