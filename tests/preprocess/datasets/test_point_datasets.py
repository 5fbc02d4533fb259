"""Raw datasets of points as their publishers lay them out."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from maskstream.preprocess.datasets import DATASETS
from maskstream.preprocess.datasets.folder import mesh_folder, points_folder
from maskstream.preprocess.datasets.point_clouds import blocks, las, modelnet40
from maskstream.preprocess.datasets.shapenet import CATEGORIES, shapenet
from maskstream.preprocess.encode.points import encoder as point_files
from maskstream.preprocess.encode.points.encoder import PointEncoder, decode
from maskstream.preprocess.job.shards import make_shards
from maskstream.preprocess.source import RejectError, Source
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.media.npy import read_npy

from ..raw_files import labelled, put, put_all

pytestmark = pytest.mark.skipif(
    not (find_spec("laspy") and find_spec("trimesh")), reason="what reads points needs the extra points"
)

TRIANGLE = "OFF3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"  # ModelNet's first line, without its line break


@pytest.mark.parametrize("base", ["", "ModelNet40/"])
def test_modelnet40(tmp_path, base):
    for name in ("chair/train/chair_0001.off", "chair/test/chair_0002.off", "airplane/train/airplane_0001.off"):
        put(tmp_path / (base + name), TRIANGLE)
    dataset = modelnet40(tmp_path)
    assert dataset.modality == "points"
    assert labelled(dataset) == {
        "train": [("airplane/train/airplane_0001.off", "airplane"), ("chair/train/chair_0001.off", "chair")],
        "val": [("chair/test/chair_0002.off", "chair")],
    }
    made = PointEncoder().encode(dataset.splits["val"][0])
    assert made.members["points.npy"].facts["n_points"] == 8192


@pytest.mark.parametrize("base", ["", "ShapeNetCore.v2.PC15k/"])
def test_the_clouds_of_shapenet(tmp_path, base):
    for name in ("03001627/train/b.npy", "03001627/test/c.npy", "02691156/train/a.npy"):
        put(tmp_path / (base + name), np.random.default_rng(0).normal(size=(20, 3)))
    dataset = shapenet(tmp_path)
    assert labelled(dataset) == {
        "train": [("02691156/train/a.npy", "airplane"), ("03001627/train/b.npy", "chair")],
        "test": [("03001627/test/c.npy", "chair")],
    }
    source = dataset.splits["test"][0]
    stored = PointEncoder().encode(source).members["points.npy"].data
    assert stored.endswith(np.load(source.path).astype("<f4").tobytes())


def test_the_models_of_shapenet_and_their_published_splits(tmp_path):
    for name in ("03001627/aa/models/model_normalized.obj", "03001627/bb/model.obj", "02691156/cc/model.obj"):
        put(tmp_path / name, "v 0 0 0\n")
    assert [id for id, _ in labelled(shapenet(tmp_path))["train"]] == ["02691156/cc", "03001627/aa", "03001627/bb"]
    table = "id,synsetId,subSynsetId,modelId,split\n1,03001627,1,aa,test\n2,2691156,2,cc,val\n"
    put(tmp_path / "all.csv", table)
    assert labelled(shapenet(tmp_path)) == {"test": [("03001627/aa", "chair")], "val": [("02691156/cc", "airplane")]}
    put(tmp_path / "all.csv", table.replace("test", "dev"))
    with pytest.raises(DatasetError, match="split 'dev'"):
        shapenet(tmp_path)
    put(tmp_path / "all.csv", "a,b\n1,2\n")
    with pytest.raises(DatasetError, match="columns"):
        shapenet(tmp_path)


def test_modelnet40_of_pointnet2(tmp_path):
    base = tmp_path / "modelnet40_normal_resampled"
    names = ("airplane_0001", "airplane_0627", "night_stand_0001", "night_stand_0201")
    clouds = {f"{name.rpartition('_')[0]}/{name}.txt": "0.1,0.2,0.3,0,0,1\n0.4,0.5,-0.6,0,1,0\n" for name in names}
    lists = {"modelnet40_train.txt": f"{names[0]}\n{names[2]}\n", "modelnet40_test.txt": f"{names[1]}\n{names[3]}\n"}
    put_all(base, clouds | lists | {"modelnet40_shape_names.txt": "airplane\nnight_stand\n"})
    dataset = modelnet40(tmp_path)
    assert labelled(dataset) == {
        "train": [("airplane/airplane_0001.txt", "airplane"), ("night_stand/night_stand_0001.txt", "night_stand")],
        "val": [("airplane/airplane_0627.txt", "airplane"), ("night_stand/night_stand_0201.txt", "night_stand")],
    }
    made = dataset.encoder.encode(dataset.splits["train"][0])
    assert made.meta["columns"] == ["x", "y", "z", "normal_x", "normal_y", "normal_z"]
    points = read_npy(made.members["points.npy"].data)
    np.testing.assert_allclose(np.sort(points[:, 2]), [-0.6, 0.3], rtol=1e-6)
    assert points.shape == (2, 6)
    (base / "airplane/airplane_0001.txt").write_text("0.1,0.2,hello\n")
    with pytest.raises(RejectError, match="is not a text file of numbers"):
        PointEncoder().encode(dataset.splits["train"][0])


def test_modelnet40_of_15000_points(tmp_path):
    for name in ("chair/train/chair_0001", "chair/test/chair_0900", "sofa/train/sofa_0001", "sofa/test/sofa_0700"):
        path = tmp_path / "ModelNet40.PC15k" / f"{name}.npy"
        path.parent.mkdir(parents=True)
        np.save(path, np.zeros((5, 3), np.float32))
    dataset = modelnet40(tmp_path)
    assert labelled(dataset)["val"] == [("chair/test/chair_0900.npy", "chair"), ("sofa/test/sofa_0700.npy", "sofa")]
    assert dataset.splits["train"][0].meta == {"rows": "published"}


@pytest.mark.parametrize(("name", "lists"), [("shapenet55", "ShapeNet-55"), ("shapenet34", "ShapeNet-34")])
def test_shapenet55_as_point_mae_reads_it(tmp_path, name, lists):
    base = tmp_path / "data" / "ShapeNet55-34"
    train, test = "02691156-1a04e3eab45ca15dd86060f189eb133.npy", "03001627-1006be65e7bc937e9141f9b58470d646.npy"
    put_all(base, {f"{lists}/train.txt": f"{train}\n03001627-a.npy\n", f"{lists}/test.txt": f"{test}\n"})
    put_all(base, {f"shapenet_pc/{name}": "" for name in (train, test, "03001627-a.npy")})
    assert labelled(DATASETS[name](tmp_path)) == {
        "train": [(train, "airplane"), ("03001627-a.npy", "chair")],
        "val": [(test, "chair")],
    }
    (base / lists / "train.txt").unlink()
    with pytest.raises(DatasetError, match=rf"{name}: there is no {lists}/train\.txt in .*\. Get ShapeNet55-34"):
        DATASETS[name](tmp_path)


def test_shapenetpart_as_published(tmp_path):
    base = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    put_all(base, {"synsetoffset2category.txt": "Airplane\t02691156\nBag\t02773838\n"})
    cloud = "0.1 0.2 0.3 0.0 0.0 1.0 0.000000\n0.4 0.5 0.9 0.0 1.0 0.0 2.000000\n"
    for split, name in (("train", "02691156/1a04"), ("val", "02773838/a"), ("test", "02773838/b")):
        put_all(base, {f"{name}.txt": cloud})
        entries = json.dumps([f"shape_data/{name}"])
        put_all(base, {f"train_test_split/shuffled_{split}_file_list.json": entries})
    dataset = DATASETS["shapenetpart"](tmp_path)
    assert labelled(dataset) == {
        "train": [("02691156/1a04", "Airplane")],
        "val": [("02773838/a", "Bag")],
        "test": [("02773838/b", "Bag")],
    }
    points = read_npy(PointEncoder().encode(dataset.splits["val"][0]).members["points.npy"].data)
    assert points[:, 6].max() == 2  # the part
    put_all(base, {"train_test_split/shuffled_val_file_list.json": '["shape_data/0123/x"]'})
    with pytest.raises(DatasetError, match="from an unknown synset"):
        DATASETS["shapenetpart"](tmp_path)


def test_shapenet_has_55_categories():
    assert len(CATEGORIES) == 55
    assert all(len(synset) == 8 and synset.isdecimal() for synset in CATEGORIES)


def tile(root, name, n, seed=0):
    laspy = pytest.importorskip("laspy")
    data = laspy.LasData(laspy.LasHeader(point_format=3, version="1.2"))
    data.x, data.y, data.z = (np.random.default_rng(seed).random((n, 3)) * [200, 100, 10]).T
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data.write(path)
    return path


def test_large_tiles_are_cut_into_blocks_that_share_no_point(tmp_path):
    path = tile(tmp_path, "train/city/a.laz", 5000)
    cut = list(blocks(Source(id="a", path=path, label=0), 600))
    assert 9 <= len(cut) <= 16
    sizes = [PointEncoder().encode(source).members["points.npy"].facts["n_points"] for source in cut]
    assert sum(sizes) == 5000
    assert max(sizes) < 900
    assert len({source.id for source in cut}) == len(cut)
    assert labelled(las(tmp_path)) == {"train": [("train/city/a.laz", "city")]}
    put(tmp_path / "train/city/b.las", "LASF" + "x" * 400)
    assert [source.id for source in las(tmp_path).splits["train"]] == ["train/city/a.laz", "train/city/b.las"]


def test_a_tile_is_decoded_once_for_all_of_its_blocks(tmp_path, monkeypatch):
    paths = [tile(tmp_path, f"{name}.laz", 5000, seed) for seed, name in enumerate("ab")]
    cut = [block for path in paths for block in blocks(Source(id=path.stem, path=path, label=0), 600)]
    cut.sort(key=lambda source: source.id[::-1])
    assert [source.path for source in cut[:2]] == paths
    decoded = []
    monkeypatch.setattr(point_files, "decode", lambda *of: decoded.append(of) or decode(*of))
    wholes = {path: decode(path) for path in paths}
    one_tile = wholes[paths[0]].points.nbytes
    for max_bytes, times in ((3 * one_tile, 2), (one_tile, len(cut)), (one_tile - 1, len(cut))):
        decoded.clear()
        tiles = point_files.TileCache(max_bytes)
        for source in cut:
            block = source.meta["block"]
            rows = tiles.rows(source.path, block).points
            np.testing.assert_array_equal(rows, wholes[source.path].inside(block).points)
        assert len(decoded) == times


def test_chunks_of_a_tile_are_the_tile(tmp_path, monkeypatch):
    path = tile(tmp_path, "a.laz", 1000)
    whole, block = decode(path), (20.0, 10.0, 150.0, 60.0)
    monkeypatch.setattr(point_files, "CHUNK", 300)
    np.testing.assert_array_equal(decode(path).points, whole.points)
    x, y = whole.points[:, :2].T
    want = whole.points[(x >= 20) & (x < 150) & (y >= 10) & (y < 60)]
    assert 0 < len(want) < 1000
    np.testing.assert_array_equal(decode(path, block).points, want)
    changed = tile(tmp_path, "a.laz", 1100, seed=3)
    tiles = point_files.TileCache()
    assert len(tiles.rows(path, None).points) == 1100
    tile(tmp_path, "a.laz", 1200)
    assert len(tiles.rows(changed, None).points) == 1200


def test_a_folder_of_all_kinds_becomes_shards_and_rejects(tmp_path):
    root = tmp_path / "raw"
    put(root / "train/a/cloud.npy", np.random.default_rng(0).normal(size=(20, 3)))
    put(root / "train/b/mesh.off", TRIANGLE)
    tile(root, "train/b/tile.laz", 50)
    put(root / "train/b/one.npy", np.ones((1, 3)))
    assert len(points_folder(root).splits["train"]) == 4
    report = make_shards("points-folder", root, tmp_path / "out", workers=0, max_rejects=1)
    assert report.splits["train"].counts["rejects"] == 1
    manifest = Manifest.load(tmp_path / "out" / "train")
    assert sorted(manifest.component("points.npy").facts["n_points"].tolist()) == [20, 50, 8192]
    assert manifest.info["sums"]["points"][0] == 20 + 50 + 8192


def test_files_that_are_not_read_are_named_with_what_to_do(tmp_path):
    put(tmp_path / "train/a/cloud.xyz", "1 2 3\n4 5 6\n")
    put(tmp_path / "train/b/cloud.PTX", "")
    put(tmp_path / "train/b/cloud.txt", "1 2 3\n4 5 6\n")
    found = points_folder(tmp_path)
    assert [source.id for source in found.splits["train"]] == ["train/a/cloud.xyz"]
    assert found.doubt == (
        f"2 files in {tmp_path} would be ignored (train/b/cloud.PTX, train/b/cloud.txt): save clouds as PLY, PCD, E57, "
        "LAS or NPY (CloudCompare and PDAL do); add --set txt=true to read .txt files with x, y, z in each line, or "
        "move them away"
    )
    found = points_folder(tmp_path, txt=True)
    assert [source.id for source in found.splits["train"]] == ["train/a/cloud.xyz", "train/b/cloud.txt"]
    put(tmp_path / "meshes" / "a.gltf", "{}")
    with pytest.raises(DatasetError, match=r"1 file in .* would be ignored \(a.gltf\): save meshes as PLY, OBJ or GLB"):
        mesh_folder(tmp_path / "meshes")


@pytest.mark.parametrize("build", [modelnet40, shapenet, las, points_folder])
def test_what_is_not_there_is_said(tmp_path, build):
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(
            DatasetError, match=r"there is no|does not exist|none of them exists below|neither|contains no"
        ):
            build(root)
