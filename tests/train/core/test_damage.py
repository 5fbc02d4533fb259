"""Damage of a run's files: the resumed run is the one that was never disturbed, or it is refused with a remedy."""

import json
import os
import re
import shutil

import pytest

from maskstream.shards.checksummed import add_checksum, read_checksummed
from maskstream.shards.errors import ResumeError
from maskstream.train import Trainer, load_model, read_metrics

STEPS, STOPPED_AT = 12, 10
NEW, OLD = "checkpoints/step-00000008", "checkpoints/step-00000004"
MODEL, OPTIMISER, STATE = "model.safetensors", "optimiser.safetensors", "state.json"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of `whole`, an undisturbed run of 12 steps, and `stopped`, which died in step 11 with checkpoints
    after steps 4 and 8.
    """
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def train(recipe, synthetic_loader, runs):
    """Trains in a folder, from what is there, to the end or until the loader dies after some batches."""

    def run(out, dies_after=None):
        loader = synthetic_loader(batches=5)

        def crash(made):
            if made == dies_after:
                raise RuntimeError("the machine is gone")

        loader.before_batch = crash
        trainer = Trainer(recipe, loader, out, steps=STEPS, save_every=4, progress=False)
        begun = trainer.step
        trainer.run()
        return begun

    if not (runs / "whole").exists():
        run(runs / "whole")
        with pytest.raises(RuntimeError, match="gone"):
            run(runs / "stopped", dies_after=STOPPED_AT)
    return run


def rows(out):
    """All of the metrics but how long steps took."""
    return [(m.step, m.epoch, m.loss, m.parts, m.lr, m.grad_norm) for m in read_metrics(out / "metrics.jsonl")]


def weights(out):
    return {name: w.numpy().tobytes() for name, w in load_model(out / MODEL).state_dict().items()}


def flipped(data, bit=None):
    changed = bytearray(data)
    at = len(data) * 4 + 1 if bit is None else bit
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def line(number):
    """Flips a bit of a digit in a line of metrics, which stays JSON."""

    def damage(data):
        lines = data.splitlines(keepends=True)
        at = lines[number - 1].index(b'"lr": 0.') + len(b'"lr": 0.')
        lines[number - 1] = flipped(lines[number - 1], at * 8)
        return b"".join(lines)

    return damage


def edited(**fields):
    """A state whose fields are others and whose checksum is right."""
    return lambda data: add_checksum({**read_checksummed(data), **fields})


def unchecked(**fields):
    return lambda data: json.dumps({**json.loads(data), **fields}, indent=2).encode()


WAYS = {
    "flip": flipped,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "nuls at the end": lambda data: data + b"\0" * 4096,
    "nuls": lambda data: b"\0" * len(data),
    "binary": lambda data: b"\x80\xff\xfe" * 99,
    "missing": None,
}
DAMAGES = {
    f"{way} {name.split('.')[0]}": ({f"{NEW}/{name}": WAYS[way]}, 4, f"step-00000008: {name}")
    for name in (MODEL, OPTIMISER, STATE)
    for way in WAYS
}
DAMAGES |= {
    "flip of a digit of the step": ({f"{NEW}/{STATE}": unchecked(step=9)}, 4, "do not match its checksum"),
    "forged step": ({f"{NEW}/{STATE}": edited(step=4)}, 4, "state.json belongs to step 4"),
    "forged position": ({f"{NEW}/{STATE}": edited(loader={"seed": 0, "epoch": 0, "batch": 3})}, 4, "batch 3 of 5"),
    "old state": ({f"{NEW}/{STATE}": lambda data: json.dumps(read_checksummed(data)).encode()}, 4, "earlier release"),
    "list for state": ({f"{NEW}/{STATE}": lambda data: b"[]"}, 4, "contains a list"),
    "nested state": ({f"{NEW}/{STATE}": lambda data: b"[" * 200_000}, 4, "not valid JSON"),
    "no fields": (
        {f"{NEW}/{STATE}": lambda _: add_checksum({"step": 8})},
        4,
        "state.json is damaged: Position needs steps",
    ),
    "lying of files": ({f"{NEW}/{STATE}": edited(files=[])}, 4, "state.json is damaged"),
    "nuls behind the metrics": ({"metrics.jsonl": WAYS["nuls at the end"]}, 8, None),
    "binary behind the metrics": ({"metrics.jsonl": lambda data: data + b"\xff\xfe\x00\n\x80"}, 8, None),
    "metrics cut in the last line": ({"metrics.jsonl": lambda data: data[:-20]}, 8, None),
    "later metrics flipped": ({"metrics.jsonl": line(9)}, 8, None),
    "metrics of step 6 flipped": (
        {"metrics.jsonl": line(6)},
        4,
        "metrics.jsonl does not have the contents that were written",
    ),
    "metrics cut in step 6": (
        {"metrics.jsonl": lambda data: b"".join(data.splitlines(True)[:5]) + b'{"st'},
        4,
        "metrics.jsonl has .* bytes, but",
    ),
    "metrics of step 2 flipped": (
        {"metrics.jsonl": line(2)},
        None,
        "metrics.jsonl does not have the contents that were written",
    ),
    "empty metrics": ({"metrics.jsonl": WAYS["empty"]}, None, "metrics.jsonl has 0 bytes"),
    "nuls for metrics": (
        {"metrics.jsonl": WAYS["nuls"]},
        None,
        "metrics.jsonl does not have the contents that were written",
    ),
    "binary metrics": ({"metrics.jsonl": WAYS["binary"]}, None, "metrics.jsonl has 297 bytes"),
    "missing metrics": ({"metrics.jsonl": None}, None, "metrics.jsonl is missing"),
    "empty run.json": ({"run.json": WAYS["empty"]}, 8, None),
    "binary run.json": ({"run.json": WAYS["binary"]}, 8, None),
    "missing run.json": ({"run.json": None}, 8, None),
    "no newest checkpoint": ({NEW: None}, 4, None),
    "no checkpoints": ({"checkpoints": None}, 0, None),
    "both models": ({f"{NEW}/{MODEL}": flipped, f"{OLD}/{MODEL}": flipped}, None, "step-00000008.*step-00000004"),
    "model and old state": ({f"{NEW}/{MODEL}": flipped, f"{OLD}/{STATE}": None}, None, "state.json is missing"),
}


def do(folder, damage):
    for name, way in damage.items():
        path = folder / name
        if way is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            before = path.read_bytes()
            path.write_bytes(way(before))
            assert path.read_bytes() != before


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_ends_in_the_exact_run_or_is_refused(train, runs, tmp_path, caplog, damage):
    files, begins_at, says = DAMAGES[damage]
    out = shutil.copytree(runs / "stopped", tmp_path / "run")
    do(out, files)
    if begins_at is None:
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(ResumeError, match=f"no checkpoint in .* is intact: .*{says}.*start over.*--no-resume"):
            train(out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        return
    assert train(out) == begins_at
    assert rows(out) == rows(runs / "whole")
    assert weights(out) == weights(runs / "whole")
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step-00000008", "step-00000012"]
    if says is None:
        assert caplog.text == ""
    else:
        assert re.search(f"using .*step-0000000{begins_at}, because newer .* damaged: .*{says}", caplog.text)


@pytest.mark.parametrize("kind", ["fifo", "folder", "file", "dangling"])
def test_what_is_no_file_is_damage_too(train, runs, tmp_path, kind):
    """A FIFO must not be waited for."""
    out = shutil.copytree(runs / "stopped", tmp_path / "run")
    make = {"fifo": os.mkfifo, "folder": os.mkdir, "dangling": lambda path: path.symlink_to(tmp_path / "nowhere")}
    if kind == "file":
        shutil.rmtree(out / NEW)
        (out / NEW).write_bytes(b"a file")
    else:
        for name in (MODEL, STATE):
            (out / NEW / name).unlink()
            make[kind](out / NEW / name)
    assert train(out) == 4
    assert rows(out) == rows(runs / "whole")


def test_every_byte_of_the_state_counts(runs, train):
    """Each flip is found, or it changed no value: it made a space of a line's end."""
    data = (runs / "stopped" / NEW / STATE).read_bytes()
    fields, found = read_checksummed(data), 0
    for bit in range(len(data) * 8):
        try:
            assert read_checksummed(flipped(data, bit)) == fields
        except ValueError:
            found += 1
    assert found > len(data) * 8 * 0.95


def test_checkpoints_alone_in_a_new_folder_go_on_with_metrics_that_begin_there(train, runs, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(runs / "stopped/checkpoints", out / "checkpoints")
    assert train(out) == 8
    assert "has no metrics of the steps up to 8; they begin after it" in caplog.text
    assert rows(out) == rows(runs / "whole")[8:]
    assert weights(out) == weights(runs / "whole")


def test_a_damaged_checkpoint_is_not_chosen_again_after_the_run_has_gone_on(train, runs, tmp_path):
    """Also where the damage was a disk's mood: the metrics of its steps are no longer those of the file."""
    out = shutil.copytree(runs / "stopped", tmp_path / "run")
    whole = (out / NEW / MODEL).read_bytes()
    (out / NEW / MODEL).write_bytes(flipped(whole))
    with pytest.raises(RuntimeError, match="gone"):
        train(out, dies_after=2)
    (out / NEW / MODEL).write_bytes(whole)
    assert train(out) == 4
    assert rows(out) == rows(runs / "whole")
