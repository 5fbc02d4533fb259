"""The steps of `make gpu` on a CPU, under a pretended card: all pass or need a card, and each finds a planted fault."""

import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.metadata import packages_distributions, requires
from itertools import chain, count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch
from torch.distributed import is_initialized

from maskstream.pipelines.flow import Lk, Ofa
from maskstream.pipelines.stream.loader import Loader

from . import pretended_card

ROOT = Path(__file__).parents[1]


@pytest.fixture
def step(monkeypatch):
    """The module of a name below benchmarks/."""
    monkeypatch.syspath_prepend(str(pretended_card.BENCHMARKS))
    return import_module


@pytest.fixture
def rig(step, monkeypatch):
    """The machine with the pretended card."""
    for owner, name, value in pretended_card.answers():
        monkeypatch.setattr(owner, name, value)
    return step("gpu_rig").find_rig()


@pytest.mark.slow
def test_all_steps_pass_or_need_a_card(tmp_path) -> None:
    out = tmp_path / "gpu.json"
    words = [sys.executable, str(ROOT / "tests/pretended_card.py"), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["card"] == pretended_card.CARD
    states = {name: row["state"] for name, row in found["steps"].items()}
    assert states.pop("tests") == states.pop("challenger") == "needs a card"
    assert set(states.values()) == {"passed"}
    assert "7 engines of NVDEC" in found["steps"]["decoding"]["figures"]["vp9"]["arithmetic"]


def test_every_step_has_a_function_and_a_planted_fault(step) -> None:
    names = [own.name for own in step("gpu").STEPS]
    assert all(callable(getattr(step(own.file), own.name)) for own in step("gpu").STEPS)
    assert {name for name, _ in FAULTS} == set(names)


HIDING = """
import importlib.abc, sys, pytest

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
sys.exit(pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", "-m", "gpu", *sys.argv[2:]]))
"""


@pytest.mark.slow
def test_what_wheels_installs_is_all_that_the_tests_of_a_card_import(step) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["dependency-groups"]["dev"], *chain(*extras.values())]
    (listed,) = re.findall(r"^GPU_TESTS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    there = [*listed.split(), *extras["gpu"], *extras["audio"], *project["project"]["dependencies"]]
    needed = {name_of(each) for each in there} | {name_of(each) for each in requires("librosa") or ()}
    missing = {name_of(each) for each in wanted if isinstance(each, str)} - needed
    found = packages_distributions().items()  # some wheels have a package `tests` in them
    modules = [module for module, by in found if {*map(name_of, by)} <= missing and module != "tests"]
    assert {"transformers", "torchdata", "lightning"} <= {*modules}
    files = step("gpu_steps").files_with_gpu_tests()
    words = [sys.executable, "-c", HIDING, ",".join(modules), *files]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-1000:]


def name_of(requirement: str) -> str:
    """The normal form of the name of a package."""
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


Plant = Callable[[Any, pytest.MonkeyPatch, Path], str]
"""Plants a fault, given gpu_steps and a folder, and returns what the step is to say."""
FAULTS: list[tuple[str, Plant]] = []


def fault_of(step: str) -> Callable[[Plant], Plant]:
    """Notes a function that plants a fault in a step."""

    def noted(plant: Plant) -> Plant:
        FAULTS.append((step, plant))
        return plant

    return noted


def spoil(module: Any, patch: pytest.MonkeyPatch, decoder: str, change: Callable[[Any], Any]) -> None:
    """Every batch of the loaders by a decoder is changed."""
    made = module.loader_of

    class Spoilt:
        def __init__(self, loader: Any) -> None:
            self._loader = loader

        def __getattr__(self, name: str) -> Any:
            return getattr(self._loader, name)

        def __iter__(self) -> Iterator[Any]:
            return map(change, iter(self._loader))

        def repeat(self) -> Iterator[Any]:
            yield from map(change, self._loader.repeat())

    patch.setattr(
        module,
        "loader_of",
        lambda *about, **options: (Spoilt if about[2] == decoder else lambda loader: loader)(made(*about, **options)),
    )


def next_frames(batch: Any) -> Any:
    return replace(batch, video=batch.video.roll(1, dims=1))


@fault_of("probe")
def an_old_driver(steps, patch, folder) -> str:
    patch.setattr(steps, "output_of", lambda *command: "570.86")
    return "driver 570.86: nvidia-dali-cuda130 needs 580"


@fault_of("probe")
def a_missing_library(steps, patch, folder) -> str:
    patch.setattr(steps, "missing_libraries", lambda: ["libnvcuvid.so.1"])
    return "libnvcuvid.so.1 cannot be loaded"


@fault_of("pixels")
def other_frames(steps, patch, folder) -> str:
    spoil(steps, patch, "dali", next_frames)
    return "vp9: a frame is closer to another one"


@fault_of("pixels")
def a_bright_batch(steps, patch, folder) -> str:
    spoil(steps, patch, "dali", lambda batch: replace(batch, video=torch.full_like(batch.video, 255)))
    return "vp9: mean difference"


@fault_of("decoding")
def a_decoder_that_fails(steps, patch, folder) -> str:
    def broken(batch: Any) -> Any:
        raise RuntimeError("no decoder on this card\nand more")

    spoil(steps, patch, "dali", broken)
    return "vp9 by dali, 0 workers: RuntimeError: no decoder on this card"


@fault_of("training")
def clips_on_the_cpu(steps, patch, folder) -> str:
    patch.setattr(steps, "on_cpu", lambda loader: Counter({"DALI failed": 3}))
    return "videomae-tiny, dali: 3 clips were decoded on the CPU"


@fault_of("training")
def no_losses(steps, patch, folder) -> str:
    read = steps.read_metrics
    patch.setattr(steps, "read_metrics", lambda path: [replace(row, loss=float("nan")) for row in read(path)])
    return "videomae-tiny, cpu: a loss is not finite"


@fault_of("ranks")
def other_losses(steps, patch, folder) -> str:
    made = steps.Trainer
    patch.setattr(steps, "WAYS", {"ddp": {"compile": "no"}})
    patch.setattr(steps, "Trainer", lambda *about, **options: made(*about, seed=int(is_initialized()), **options))
    return "ddp: losses differ by"


@fault_of("endurance")
def a_leak(steps, patch, folder) -> str:
    grown = count()
    patch.setattr(steps, "memory_mib", lambda rig: 100.0 * next(grown))
    return "device memory grows by"


@fault_of("endurance")
def no_damage(steps, patch, folder) -> str:
    patch.setattr(steps, "damage", lambda folder, every: set())
    return "no damaged clip was noticed"


@fault_of("endurance")
def other_pixels(steps, patch, folder) -> str:
    spoil(steps, patch, "dali", next_frames)
    return "an undamaged clip has wrong pixels"


@fault_of("endurance")
def another_resume(steps, patch, folder) -> str:
    patch.setattr(Loader, "load_state_dict", lambda self, state: None)
    return "a resumed run has different keys or masks"


@fault_of("flow")
def the_wrong_sign(steps, patch, folder) -> str:
    right = Lk.of_clips
    patch.setattr(Lk, "of_clips", lambda self, clips: -right(self, clips))
    return "points forward, or its sign is wrong"


@fault_of("masks")
def other_flow(steps, patch, folder) -> str:
    motion = import_module("gpu_motion")
    right, some = motion.on_device, [*motion.settings()][::17]
    patch.setattr(motion, "settings", lambda: some)
    patch.setattr(motion, "on_device", lambda mask, grid, field: right(mask, grid, -field))
    return "tokens differ from numba's"


@fault_of("tests")
def a_test_that_fails(steps, patch, folder) -> str:
    (folder / "test_one.py").write_text("import pytest\n\n@pytest.mark.gpu\ndef test_one():\n    assert 0\n")
    patch.setattr(steps, "TESTS", folder)
    return "1 failed"


class Decoder:
    """What the sources of PyNvVideoCodec say of SimpleDecoder, by PyAV on a CPU; backwards gives frames so."""

    backwards = False

    def __init__(self, data: bytes, **options: object) -> None:
        assert options == {"gpu_id": 0, "use_device_memory": True, "output_color_type": "rgb"}
        with av.open(io.BytesIO(data)) as container:
            self.frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def get_batch_frames_by_index(self, numbers: list[int]) -> list[Any]:
        found = [self.frames[number] for number in numbers]
        return found[::-1] if self.backwards else found


@fault_of("challenger")
def frames_backwards(steps, patch, folder) -> str:
    patch.setattr(Decoder, "backwards", True)
    return "8 threads: frames are out of order"


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    """A function that gives the folder of a split of a kind, of which each is encoded once."""
    made: dict[Any, Path] = {}

    def split(rig: Any, kind: Any, videos: int) -> Path:
        key = (repr(kind), videos)
        if key not in made:
            made[key] = rig.write_kind(tmp_path_factory.mktemp("kind") / "split", kind, videos)
        return made[key]

    return split


@pytest.mark.slow
@pytest.mark.parametrize(("name", "plant"), FAULTS, ids=[f"{name}: {plant.__name__}" for name, plant in FAULTS])
def test_a_planted_fault_makes_its_step_fail(name, plant, rig, step, splits, monkeypatch, tmp_path) -> None:
    @contextmanager
    def split_of(kind: Any, *, videos: int) -> Iterator[Path]:
        yield Path(shutil.copytree(splits(step("gpu_rig"), kind, videos), tmp_path / "split", dirs_exist_ok=True))
        shutil.rmtree(tmp_path / "split")

    steps = step("gpu_steps")
    monkeypatch.setattr(steps, "split_of", split_of)
    codec = SimpleNamespace(SimpleDecoder=Decoder, OutputColorType=SimpleNamespace(RGB="rgb"))
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", codec)
    says = plant(steps, monkeypatch, tmp_path)
    own = next(each for each in step("gpu").STEPS if each.name == name)
    _, wrong = getattr(step(own.file), own.name)(rig)
    assert any(says in each for each in wrong), wrong


def test_a_step_that_ends_badly_or_never_ends_no_other(rig, step, monkeypatch) -> None:
    gpu = step("gpu")
    monkeypatch.setattr(sys, "argv", [str(ROOT / "tests/samples/no_such_file.py")])
    row = gpu.run(gpu.Step("probe", ""), rig)
    assert (row["state"], row["figures"]) == ("failed", {})
    assert "No such file" in row["wrong"][-1]
    assert gpu.run(gpu.Step("probe", "", 0), rig)["state"] == "timed out"
    assert gpu.run(gpu.Step("probe", "", package="no-such-package"), rig)["state"] == "needs no-such-package"


def test_speed_is_judged_by_arithmetic_on_a_card_alone(rig, step) -> None:
    """16 cores at 12 ms give 1,333 clips/s, and at least half of that; seven engines of an H100 1,380 to 2,220."""
    steps = step("gpu_steps")
    real = replace(rig, device=torch.device("cuda", 0), cores=16)
    limits = step("gpu_rig").expected(real, packets=33.1, size=(448, 256), cpu_ms={"cpu": 12.0})
    assert limits == {
        "16 cores, cpu": [667, 1333],
        "one process": [1111, 2941],
        "7 engines of NVDEC": [1369, 2219],
        "16 threads waiting for NVDEC": [1208, 1934],
    }
    assert steps.slower(real, "h264", {"cpu, 0 workers": 700.0}, limits) == []
    assert "16 cores alone should reach 667" in steps.slower(real, "h264", {"cpu, 0 workers": 600.0}, limits)[0]
    many = step("gpu_rig").expected(replace(real, cores=128), packets=33.1, size=(448, 256), cpu_ms={"cpu": 12.0})
    assert steps.slower(real, "h264", {"cpu, 8 workers": 1200.0}, many) == [], "one process receives no more"
    assert steps.slower(rig, "h264", {"cpu, 0 workers": 600.0}, limits) == []


def test_a_slow_loader_has_a_rate(rig, step) -> None:
    loader = SimpleNamespace(repeat=lambda: (["clip"] * 4 for _ in count()))
    assert step("gpu_rig").rate_of(loader, rig, 0.0)[0] > 0


def test_textures_move_as_they_say(step) -> None:
    for x, y in step("gpu_motion").STEPS:
        clips = step("gpu_motion").moving((x, y), clips=2, frames=3, size=40)
        assert (clips.shape, clips.dtype) == ((2, 3, 40, 40, 3), torch.uint8)
        later, earlier = clips[:, 1:, 8:32, 8:32], clips[:, :-1, 8 - y : 32 - y, 8 - x : 32 - x]
        assert torch.equal(later, earlier)
        assert clips.float().std() > 20
        assert not torch.equal(clips[0], clips[1])


def test_flow_is_judged_by_sign_and_error(step) -> None:
    motion = step("gpu_motion")
    true = torch.zeros(1, 2, 2, 4, 4)
    true[:, :, 0] = -3
    assert motion.judged(true, (3, 0)) == (0, "")
    assert "points forward, or its sign" in motion.judged(-true, (3, 0))[1]
    assert "a median error of 1.00 px" in motion.judged(true + torch.tensor([0, 1])[:, None, None], (3, 0))[1]


def test_lucas_kanade_passes_and_what_is_missing_or_fails_is_said(step, monkeypatch) -> None:
    motion, rig = step("gpu_motion"), step("gpu_rig").find_rig()
    assert [*motion.sources(rig)] == ["lk"]
    assert len(motion.sources(replace(rig, device=torch.device("cuda", 0)))) == 1 + 3 * 3

    def broken(clips: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such grid on this card\nand more")

    failing = SimpleNamespace(missing=lambda device: None, of_clips=broken)
    monkeypatch.setattr(motion, "sources", lambda rig: {"lk": Lk(), "ofa": Ofa(), "other": failing})
    figures, wrong = motion.flow(rig)
    assert [*figures] == ["lk, 112 px", "lk, 224 px"]
    assert all(0 < error < 0.3 for row in figures.values() for error in row["median_error_px"])
    assert all(row["clips_per_s"] > 0 for row in figures.values())
    assert wrong == [
        "ofa: the optical-flow engine is part of NVIDIA GPUs, but the device is 'cpu'",
        "other at 112 px: RuntimeError: no such grid on this card",
        "other at 224 px: RuntimeError: no such grid on this card",
    ]
