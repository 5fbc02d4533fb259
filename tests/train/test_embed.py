"""Features of whole splits as Parquet: the same rows in the same order, whatever makes them, and no half of a file."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.shards.format.manifest import Manifest
from maskstream.train import embed, load_model, train
from maskstream.train.embed import read_features, write_embeddings
from maskstream.train.evaluate.features import drop_augmentation

from ..pipelines.every_modality import write_split
from .test_every_recipe import CUTS

CPU = torch.device("cpu")


def batches(sizes, width=3):
    """Batches of rows whose numbers say where they stand."""
    begin = 0
    for number, size in enumerate(sizes):
        at = torch.arange(begin, begin + size)
        yield embed._Rows(number, [f"k{i}" for i in at.tolist()], at, at[:, None] + torch.arange(width) / 4, size)
        begin += size


@pytest.mark.parametrize("file_rows", [1, 7, 10, 23, 24, 100])
def test_rows_keep_their_order_in_files_and_groups_of_any_size(tmp_path, monkeypatch, file_rows):
    monkeypatch.setattr(embed, "GROUP_ROWS", 4)
    done = embed._write(batches([5, 0, 1, 9, 8]), tmp_path, embed._Made(), file_rows, "float16", {"recipe": "x"})
    made = done.files
    assert (done.samples, done.width, len(made)) == (23, 3, -(-23 // file_rows))
    assert embed._read_made(tmp_path, {"recipe": "x"}) == done
    assert [pq.read_metadata(one).num_rows for one in made[:-1]] == [file_rows] * (len(made) - 1)
    found = pa.concat_tables(pq.read_table(one) for one in made)
    assert found["key"].to_pylist() == [f"k{i}" for i in range(23)]
    assert found["label"].to_pylist() == list(range(23))
    assert found.schema.field("features").type == pa.list_(pa.float16(), 3)
    assert found["features"].to_pylist()[22] == [22, 22.25, 22.5]
    assert found.schema.metadata[b"recipe"] == b"x"
    groups = [
        pq.read_metadata(one).row_group(i).num_rows for one in made for i in range(pq.read_metadata(one).num_row_groups)
    ]
    assert max(groups) <= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modality"), [("mae-tiny", "image"), ("native-tiny", "image"), ("audiomae-tiny", "audio")]
)
def test_the_features_are_the_runs_in_the_order_of_the_split(tmp_path, name, modality):
    split = write_split(modality, tmp_path / "data")
    cuts = CUTS[name.partition("-")[0]]
    train(name, split, tmp_path / "run", steps=1, set=cuts, device="cpu", threads=1, progress=False)
    words = ["embed", str(tmp_path / "run"), str(split), "--out", str(tmp_path / "a" / "f.parquet"), "--device", "cpu"]
    done = CliRunner().invoke(app, [*words, "--batch-size", "3", "--file-rows", "4", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    keys, features, labels = read_features(tmp_path / "a" / "f.parquet")
    manifest = Manifest.load(split)
    assert keys == [manifest.key(i) for i in range(len(manifest))]
    assert labels.tolist() == list(manifest.label)

    again = write_embeddings(tmp_path / "run", split, tmp_path / "b.parquet", batch_size=64, workers=1, device=CPU)
    assert (again.samples, again.skipped, len(again.files)) == (len(keys), 0, 1)
    other = read_features(tmp_path / "b.parquet")
    assert other[0] == keys
    assert torch.allclose(other[1], features, rtol=1e-4, atol=1e-5)
    if name == "mae-tiny":
        model = load_model(tmp_path / "run" / "model.safetensors")
        config = drop_augmentation(model_data(tmp_path / "run"), manifest)
        loader = config.loader(split, batch_size=len(keys), shuffle=False, device="cpu", threads=1)
        (batch,) = list(loader)
        loader.close()
        with torch.no_grad():
            assert torch.allclose(model.features(batch), features, rtol=1e-4, atol=1e-5)


def model_data(run):
    from maskstream.train.core.run_folder import run_recipe

    return run_recipe(run).data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mae-tiny", "native-tiny"])
def test_a_job_that_ended_anywhere_goes_on_with_the_same_rows(tmp_path, monkeypatch, name):
    split = write_split("image", tmp_path / "data")
    train(
        name,
        split,
        tmp_path / "run",
        steps=1,
        set=CUTS["mae"] if name == "mae-tiny" else CUTS["native"],
        device="cpu",
        threads=1,
        progress=False,
    )
    options = {"batch_size": 3, "file_rows": 4, "device": CPU}
    whole = write_embeddings(tmp_path / "run", split, tmp_path / "whole.parquet", **options)
    wanted, published = read_features(tmp_path / "whole.parquet"), embed.publishing
    for ends_at in (0, len(whole.files) - 1):
        out, begun = tmp_path / f"{ends_at}.parquet", []

        def publish(path, begun=begun, ends_at=ends_at):
            begun.append(path)
            if len(begun) > ends_at:
                raise KeyboardInterrupt
            return published(path)

        monkeypatch.setattr(embed, "publishing", publish)
        with pytest.raises(KeyboardInterrupt):
            write_embeddings(tmp_path / "run", split, out, **options)
        monkeypatch.setattr(embed, "publishing", lambda path, begun=begun: (begun.append(path), published(path))[1])
        assert not out.exists()
        if ends_at:
            with pytest.raises(ValueError, match=r"unfinished features of dtype float32, not float16"):
                write_embeddings(tmp_path / "run", split, out, dtype="float16", **options)
        again = write_embeddings(tmp_path / "run", split, out, **options)
        assert len(begun) == len(whole.files) + 1
        assert (again.samples, len(again.files)) == (whole.samples, len(whole.files))
        found = read_features(out)
        assert found[0] == wanted[0]
        assert torch.equal(found[1], wanted[1])
        assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
def test_what_cannot_be_embedded_is_said_and_leaves_nothing(tmp_path):
    split = write_split("image", tmp_path / "data")
    train("mae-tiny", split, tmp_path / "run", steps=1, set=CUTS["mae"], device="cpu", threads=1, progress=False)
    for wrong, said in [
        ({"dtype": "bfloat16"}, "must be 'float32' or 'float16', got 'bfloat16'"),
        ({"batch_size": 0}, "at least 1"),
        ({"out": tmp_path / "out" / "f.csv"}, "must end in .parquet"),
    ]:
        options = {"out": tmp_path / "out" / "f.parquet", "device": CPU, **wrong}
        with pytest.raises(ValueError, match=said):
            write_embeddings(tmp_path / "run", split, **options)
    assert not (tmp_path / "out").exists()
    write_embeddings(tmp_path / "run", split, tmp_path / "out" / "f.parquet", file_rows=2, device=CPU)
    with pytest.raises(ValueError, match="exists; pass a different name"):
        write_embeddings(tmp_path / "run", split, tmp_path / "out" / "f.parquet", device=CPU)
    first = sorted((tmp_path / "out").iterdir())
    assert len(first) > 1
    first[0].unlink()
    with pytest.raises(ValueError, match="some of its files are missing"):
        read_features(tmp_path / "out" / "f.parquet")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": pa.array(["a", None])}, "`key` has 1 nulls"),
        ({"label": pa.array([None, 2], pa.int64())}, "`label` has 1 nulls"),
        ({"features": pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2))}, "`features` has 1 nulls"),
        ({"features": pa.array([[1.0, 2.0], [None, 3.0]], pa.list_(pa.float32(), 2))}, "`features` has 1 nulls"),
        ({"features": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32()))}, "not lists of equal length"),
        ({"label": None}, "is not a table of `maskstream embed`"),
    ],
)
def test_features_that_were_not_written_so_are_refused(tmp_path, changed, said):
    columns = {
        "key": pa.array(["a", "b"]),
        "label": pa.array([0, 1]),
        "features": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    }
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    assert read_features(tmp_path / "f.parquet")[1].tolist() == [[1, 2], [3, 4]]
    pq.write_table(pa.table({k: v for k, v in (columns | changed).items() if v is not None}), tmp_path / "f.parquet")
    with pytest.raises(ValueError, match=said):
        read_features(tmp_path / "f.parquet")
