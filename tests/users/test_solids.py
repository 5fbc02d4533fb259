"""Scans and meshes: clouds in NPY and PLY, surfaces in OBJ, to shards, a short Point-MAE and its report.

The user has a folder of scans and CAD parts in classes, and wants features of shapes.
"""

from pathlib import Path

import numpy as np
import pytest

from maskstream.pipelines import PointSelection, points_loader

from .conftest import Command


@pytest.mark.slow
def test_clouds_and_meshes_become_a_run_and_a_report(maskstream: Command, tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    for name in ("ball", "box"):
        for number in range(6):
            size = 1 + 0.1 * number
            solid = (
                trimesh.creation.icosphere(subdivisions=2, radius=size / 2)
                if name == "ball"
                else trimesh.creation.box((size, size, size))
            )
            cloud, _ = trimesh.sample.sample_surface(solid, 2000, seed=number)
            (tmp_path / f"clouds/{name}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"meshes/{name}").mkdir(parents=True, exist_ok=True)
            if number % 3 == 0:
                np.save(tmp_path / f"clouds/{name}/{number}.npy", cloud.astype(np.float32))
            elif number % 3 == 1:
                trimesh.PointCloud(cloud).export(tmp_path / f"clouds/{name}/{number}.ply")
            else:
                solid.export(tmp_path / f"clouds/{name}/{number}.obj")
            solid.export(tmp_path / f"meshes/{name}/{number}.obj")
    (tmp_path / "clouds/ball/scan.ptx").touch()
    words = maskstream("shards points-folder --root clouds --out points", fails=True).text
    assert "1 file in clouds would be ignored (ball/scan.ptx): save clouds as PLY, PCD, E57" in words
    (tmp_path / "clouds/ball/scan.ptx").unlink()
    maskstream("shards points-folder --root clouds --out points --val 0.34 --workers 1")
    maskstream("shards mesh-folder --root meshes --out surfaces --workers 1")
    maskstream("inspect points/train")
    maskstream("inspect surfaces/train")
    maskstream("verify surfaces/train --decode")

    seen = 0
    select = PointSelection(points=512)
    for batch in points_loader(tmp_path / "points/train", select=select, batch_size=4, seed=0):
        for points, label in zip(batch.points.numpy(), batch.label.tolist(), strict=True):
            spread = np.linalg.norm(points - points.mean(0), axis=1)
            ratio = spread.max() / spread.min()
            assert (ratio < 1.25) == (label == 0), (ratio, label)
            seen += 1
    assert seen == 8
    maskstream("train pointmae-tiny --data points/train --out run --steps 4 --set batch_size=4")
    maskstream("report run --data points/val --out report.html")
    assert "pointmae-tiny" in (tmp_path / "report.html").read_text()
    tuned = maskstream("finetune run --data points/train --test points/val --steps 2 --json").json
    assert (tuned["metric"], tuned["classes"], tuned["test"]) == ("accuracy", 2, 4)
    probed = maskstream("probe run --data points/train --test points/val --probes linear --seeds 1 --json").json
    assert {one["encoder"] for one in probed["reached"]} == {"pre-trained", "untrained", "inputs"}
    words = maskstream("finetune run --data points/train --test points/val --points part", fails=True).text
    assert "has no label column 'part'" in words
    train = "train meshmask-tiny --data surfaces/train --out mesh-run --steps 2"
    assert "use --set model.channels=3 --set model.dims=3" in maskstream(train, fails=True).text
    maskstream(f"{train} --set model.channels=3 --set model.dims=3 --set batch_size=2")
    maskstream("report mesh-run --data surfaces/train --out mesh.html --same-split")
