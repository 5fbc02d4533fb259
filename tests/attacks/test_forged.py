"""A few forged splits of every modality, and one forged number after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskstream.pipelines.modalities.mesh.read import MeshStatistics
from maskstream.pipelines.modalities.points.read import PointStats
from maskstream.pipelines.modalities.split import Split
from maskstream.pipelines.stream.produce import batch_of
from maskstream.pipelines.stream.sampler import Wanted
from maskstream.shards.errors import SampleError, ShardError
from maskstream.shards.format.records import Row
from maskstream.shards.format.sample import Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.media.mesh_members import encode_mesh
from maskstream.shards.media.npy import encode_npy, read_npy

from ..pipelines.modalities.mesh.small_simulations import simulation
from ..with_new_checksum import renew_checksum
from .forge import FORGED, few_samples, modality_of, write_forged
from .forged import GOOD, attack


@pytest.mark.slow
@pytest.mark.parametrize("name", FORGED)
def test_forged_splits_give_right_samples_bad_samples_or_a_refusal(name: str, tmp_path: Path) -> None:
    ends = attack(6, 1, tmp_path, names=(name,))
    assert ends.total() == 6
    assert set(ends) <= set(GOOD)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Sample]]:
    made: dict[str, list[Sample]] = {}

    def of(name: str) -> list[Sample]:
        if name not in made:
            made[name] = few_samples(name, tmp_path_factory.mktemp(name))
        return made[name]

    return of


NARROW = MeshStatistics(mean=(0.0, 0.0), deviation=(0.1, 0.1), change=(1.0, 1.0), edge_length=1.0)
HUGE, FAR = 2**62, 2**40
NUMBERS: dict[str, dict[str, dict[str, tuple[Any, ...]]]] = {
    "video": {
        "mp4": {
            "n_frames": (0, -1, FAR),
            "width": (0, -96, 98, 1 << 15),
            "height": (1, 2**31),
            "header_size": (0, -1, HUGE),
            "fps": (float("nan"), -1.0, float("inf")),
            "gop_first_frame": ([], [-1], [5], [0, FAR]),
            "gop_offset": ([], [-1], [HUGE]),
            "gop_size": ([0], [-5], [HUGE]),
            "gop_lead": ([-1], [FAR], []),
            "anchor_reach": ([0], [101], [1], [50] * 3, [HUGE]),
        }
    },
    "audio": {
        "flac": {
            "sample_rate": (0, -22050, FAR),
            "n_samples": (0, -1, HUGE),
            "channels": (0, 9, -1),
            "bits": (0, 40),
            "header_size": (-1, HUGE),
            "frame_samples": (0, -4096, HUGE),
            "gain": (float("nan"), float("inf"), 0.0, -1.0, 1e300),
            "frame_size": ([], [-1], [HUGE]),
        }
    },
    "audiovisual": {"flac": {"start_s": (float("nan"), float("inf"), -1e300)}, "mp4": {"fps": (0.0,)}},
    "image": {"jpg": {"width": (0, -1, 95, 1 << 20), "height": (0, -70, HUGE)}},
    "image-text": {
        "texts.npy": {
            "n_tokens": (0, -1, 19, HUGE),
            "data_offset": (-128, 0, HUGE),
            "roles": ([], [5], [99] * 6, [-1] * 6),
            "lengths": ([], [0] * 6, [-1] * 6, [2] * 6, [HUGE] * 6),
        },
        "words.npy": {"n_tokens": (0, 19, HUGE), "data_offset": (-128, 126, HUGE)},
    },
    "points": {
        "points.npy": {"n_points": (0, -1, HUGE), "n_columns": (0, -4, HUGE), "data_offset": (-128, 0, HUGE)},
    },
    "pose": {"poses.npy": {"n_frames": (0, -1, 21, HUGE), "data_offset": (-128, 0, HUGE)}},
    "trajectory": {
        "camera.npy": {
            "n_frames": (0, -1, 41, HUGE),
            "data_offset": (-128, 0, HUGE),
            "focal_x": (0.0, -1.0, float("nan"), float("inf")),
        },
        "depth.mp4": {"n_frames": (0, 41, HUGE), "width": (0, 66, 1 << 15), "gop_offset": ([], [-1], [HUGE])},
    },
    "text": {
        "tokens.npy": {"n_tokens": (0, -1, 19, HUGE), "data_offset": (-128, 0, HUGE)},
        "words.npy": {"n_tokens": (0, 19, HUGE), "data_offset": (-128, 126, HUGE)},
    },
    "surface": {"mesh.npz": {"n_nodes": (0, -1, 21, HUGE)}},
    "mesh": {
        "mesh.npz": {"n_nodes": (0, -1, HUGE)},
        "fields.npy": {
            "data_offset": (-128, HUGE),
            "shape": (
                [],
                [12],
                [0, 25, 2],
                [1, 25, 2],
                [-1, 25, 2],
                [12, 25, -2],
                [12, 25, 3],
                [12, 24, 2],
                [12, 1, 2],
                [HUGE, HUGE, 2],
            ),
        },
    },
}
CASES = [
    (name, component, column, value)
    for name, components in NUMBERS.items()
    for component, columns in components.items()
    for column, values in columns.items()
    for value in values
]


@pytest.mark.parametrize(("name", "component", "column", "value"), CASES)
def test_a_forged_number_makes_a_bad_sample(
    samples: Callable[[str], list[Sample]], tmp_path: Path, name: str, component: str, column: str, value: Any
) -> None:
    def change(rows: dict[str, Row]) -> None:
        members = rows[key].members
        placed = members[component]
        if column in placed.facts:
            members[component] = replace(placed, facts={**placed.facts, column: value})
        else:
            members[component] = replace(placed, lists={**placed.lists, column: np.array(value, np.int64)})

    key = samples(name)[1].key
    write_forged(name, samples(name), tmp_path, change)
    split = Split.open(tmp_path, modality_of(name), shuffle=False, device="cpu", threads=1)
    sampler = FORGED[name].source(split).sampler
    assert batch_of(sampler, Wanted.of([0])).key[0] == samples(name)[0].key
    with pytest.raises(SampleError, match=rf"sample '{key}' in t-000000\.tar"):
        batch_of(sampler, Wanted.of([1]))
    if column not in ("gain", "start_s", "fps"):
        assert any(f"'{key}'" in problem for problem in verify(tmp_path, decode=True).problems)


def test_numbers_that_overflow_when_they_are_normalised_make_a_bad_sample(
    samples: Callable[[str], list[Sample]], tmp_path: Path
) -> None:
    sample = samples("mesh")[1]
    fields = read_npy(sample.members["fields.npy"].data)
    far = simulation(1, columns=6).positions * np.float32(1e30)
    cells = simulation(1, columns=6).cells
    kinds = np.zeros(len(far), np.int32)
    forged = {
        "mesh.npz": encode_mesh(positions=far, cells=cells, node_type=kinds),
        "fields.npy": encode_npy(np.full_like(fields, 3e38)),
    }
    for component, data in forged.items():
        folder = tmp_path / component
        folder.mkdir()
        members = {**sample.members, component: replace(sample.members[component], data=data)}
        write_forged("mesh", [samples("mesh")[0], replace(sample, members=members), *samples("mesh")[2:]], folder)
        split = Split.open(folder, "mesh", shuffle=False, device="cpu", threads=1)
        sampler = FORGED["mesh"].source(split).sampler
        narrow = replace(sampler, rows=replace(sampler.rows, reader=replace(sampler.rows.reader, statistics=NARROW)))
        with pytest.raises(SampleError, match="overflow float32"):
            batch_of(narrow, Wanted.of([1]))


def test_meshes_that_make_no_batch_are_refused(samples: Callable[[str], list[Sample]], tmp_path: Path) -> None:
    flat, surface = samples("mesh")[0], replace(samples("surface")[1], sums={})
    write_forged("mesh", [flat, surface, *samples("mesh")[2:]], tmp_path)
    sampler = FORGED["mesh"].source(Split.open(tmp_path, "mesh", device="cpu", threads=1)).sampler
    with pytest.raises(ShardError, match="they cannot share a batch"):
        batch_of(sampler, Wanted.of([0, 1]))


SUMS: dict[str, list[Any]] = {
    "mesh": [
        {"edges": [0.0, 1.0], "fields": [1.0, 2.0, 3.0], "changes": [1.0, 2.0, 3.0]},
        {"edges": [9.0, -1.0]},
        {"edges": [9.0]},
        {"edges": [9.0, 9.0], "fields": [9.0, 1.0], "changes": [9.0]},
        {"edges": [9.0, 9.0], "fields": [], "changes": []},
        {"edges": [9.0, 9.0], "fields": [9.0, 1.0, 2.0, 3.0, 4.0], "changes": [9.0, 1.0, 2.0]},
    ],
    "audio": [{"fbank": []}, {"fbank": [1.0, 2.0]}, {"fbank": [1.0, 2.0, 3.0, 4.0]}],
    "points": [{"points": [0.0, 1.0, 1.0, 1.0, 1.0]}, {"points": [9.0]}, {"points": [9.0, 0.0, 0.0, 0.0, 0.0]}],
}


@pytest.mark.parametrize(("name", "sums"), [(name, sums) for name, several in SUMS.items() for sums in several])
def test_forged_sums_are_refused(
    samples: Callable[[str], list[Sample]], tmp_path: Path, name: str, sums: dict[str, list[float]]
) -> None:
    write_forged(name, samples(name), tmp_path)
    renew_checksum(tmp_path, sums=sums)
    opened: Callable[[Path], object] = PointStats.of if name == "points" else FORGED[name].loader
    with pytest.raises(ShardError, match=r"dataset\.json"):
        opened(tmp_path)
