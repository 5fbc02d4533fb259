"""What a pre-trained mesh network is used for: features, the next step of simulations, the classes of surfaces."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from maskstream.pipelines import mesh_loader
from maskstream.preprocess import make_shards
from maskstream.train import load_model, train
from maskstream.train.evaluate.classifier import EncoderClassifier, EncoderClassifierConfig, select_body_weights
from maskstream.train.evaluate.probe import probe
from maskstream.train.evaluate_run import evaluate_run
from maskstream.train.finetune_run import finetune, tune
from maskstream.train.papers.meshmask.model import MeshNetworkConfig
from maskstream.train.recipes import chosen_recipe

from ...pipelines.modalities.mesh.small_simulations import simulation, write_simulations

SIZES = {"channels": 2, "width": 16, "hidden": 16, "encoder_rounds": 2, "decoder_rounds": 1}
SET = tuple(f"model.{name}={value}" for name, value in SIZES.items())
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("flows")
    return write_simulations(root, map(simulation, range(4))), write_simulations(root, [simulation(9)], "val")


def test_features_of_a_mesh_are_its_own_and_reach_the_whole_encoder(splits):
    config = MeshNetworkConfig(**SIZES)
    model = config.build({}).eval()
    options = {"device": "cpu", "shuffle": False, "threads": 1}
    (together,) = mesh_loader(splits[0], batch_size=4, **options)
    alone = torch.cat([model.features(one) for one in mesh_loader(splits[0], batch_size=1, **options)])
    assert alone.shape == (4, model.feature_width)
    torch.testing.assert_close(model.features(together), alone, atol=1e-5, rtol=1e-4)
    classifier = EncoderClassifierConfig(of=config, classes=2).build({}, seed=1)
    classifier.load_state_dict(select_body_weights(model), strict=False)
    torch.testing.assert_close(classifier.features(together), model.features(together))
    classifier.features(together).square().sum().backward()
    assert all(own.grad is not None and own.grad.any() for name, own in classifier.body.named_parameters())


@pytest.mark.slow
def test_a_pre_trained_run_is_tuned_to_the_next_step_and_measured_by_rollouts(splits, tmp_path):
    run = tmp_path / "run"
    train(chosen_recipe("meshmask-tiny", SET), splits[0], run, steps=2, device="cpu", threads=1, progress=False)
    assert tune(run, splits[0]).recipe.model.task == "next"
    found = finetune(run, *splits, tmp_path / "next", steps=5, device=CPU, progress=False, save_every=500)
    assert found.metric == "squared error of one step's change"
    assert found.majority == pytest.approx(1, abs=0.1)  # a step's change has the deviation 1
    assert found.value != found.majority
    begun, pre_trained = load_file(tmp_path / "next" / "encoder.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(own, begun[name]) for name, own in pre_trained.items())
    assert [score.name for score in found.scores][1:] == [
        "error of a rollout, mean of 11 steps",
        "error of a rollout, last step",
    ]
    again = evaluate_run(tmp_path / "next", splits[1]).scores
    assert [score.value for score in again] == pytest.approx([score.value for score in found.scores])
    with pytest.raises(ValueError, match="already predicts the next step"):
        tune(tmp_path / "next", splits[0])
    with pytest.raises(ValueError, match="does not learn point labels"):
        tune(run, splits[0], points="part")


@pytest.mark.slow
def test_surfaces_are_probed_and_classified(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    for split, count in (("train", 8), ("val", 4)):
        for number in range(count):
            rng = np.random.default_rng((number, count))
            shapes = {"ball": trimesh.creation.icosphere(subdivisions=1), "box": trimesh.creation.box((1, 1, 1))}
            for name, solid in shapes.items():
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                solid.apply_scale(rng.uniform(0.8, 1.2, 3))
                solid.export(tmp_path / split / name / f"{number}.off")
    make_shards("mesh-folder", tmp_path, tmp_path / "out", workers=0)
    of = tmp_path / "out" / "train", tmp_path / "out" / "val"
    with pytest.raises(ValueError, match=r"2 in 2; use --set model.channels=3 --set model.dims=3"):
        train(chosen_recipe("meshmask-tiny", SET), of[0], tmp_path / "refused", steps=2, device="cpu", progress=False)
    assert not (tmp_path / "refused").exists()
    recipe = chosen_recipe("meshmask-tiny", (*SET, "model.channels=3", "model.dims=3", "batch_size=4"))
    train(recipe, of[0], tmp_path / "run", steps=2, device="cpu", threads=1, progress=False)
    probed = probe([tmp_path / "run"], *of, probes=("linear",), seeds=1, device=CPU)
    assert {one.encoder for one in probed.reached} == {"pre-trained", "untrained"}
    found = finetune(tmp_path / "run", *of, tmp_path / "classes", steps=20, device=CPU, progress=False, save_every=500)
    assert (found.metric, found.majority, found.test) == ("accuracy", 0.5, 8)
    assert isinstance(load_model(tmp_path / "classes" / "model.safetensors"), EncoderClassifier)
