"""Labels beside tars, as Kinetics' lists and others have them, name samples by the ends of their keys."""

import gzip
import subprocess

import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.pipelines import VideoClip, video_loader
from maskstream.preprocess import index_tars
from maskstream.preprocess.foreign.labels import LabelTable
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

from .foreign_tars import write_tar
from .test_killed import video

KINETICS = "label,youtube_id,time_start,time_end,split\nyoga,abcdefghijk,10,20,train\nzumba,-bcdefghij_,0,10,train\n"


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """A part of Kinetics: videos in a folder of a tar, without labels."""
    folder = tmp_path_factory.mktemp("part")
    data = video(folder / "raw.mp4", 0)
    names = ("abcdefghijk_000010_000020", "-bcdefghij__000000_000010", "other_000001_000011")
    (folder / "tars").mkdir()
    write_tar(folder / "tars" / "part_0.tar", [(f"train/{name}.mp4", data) for name in names])
    return folder / "tars"


def labels_of(folder):
    manifest = Manifest.load(folder)
    names = manifest.info["label_names"]
    return [names[label] if label >= 0 and names else label for label in manifest.label.tolist()]


def test_kinetics_list_labels_a_part_of_kinetics(part, tmp_path):
    (tmp_path / "train.csv").write_text(KINETICS)
    report = index_tars([part], tmp_path / "out", labels=tmp_path / "train.csv", workers=0)
    assert (report.samples, report.without_label) == (3, 1)
    assert labels_of(tmp_path / "out") == ["yoga", "zumba", -1]


def test_a_compressed_part_is_refused_and_gunzip_makes_one_that_is_indexed(part, tmp_path):
    """As the CVD Foundation publishes Kinetics: part_0.tar.gz."""
    (tmp_path / "part_0.tar.gz").write_bytes(gzip.compress((part / "part_0.tar").read_bytes(), 1))
    for given in (tmp_path, tmp_path / "part_0.tar.gz"):
        with pytest.raises(ValueError, match=r"part_0\.tar\.gz is compressed .* `gunzip`.* `maskstream shards`"):
            index_tars([given], workers=0)
    subprocess.run(["gunzip", str(tmp_path / "part_0.tar.gz")], check=True)
    assert index_tars([tmp_path], as_is=True, workers=0).samples == 3


def test_the_command_takes_a_column_and_says_how_many_have_no_label(part, tmp_path):
    (tmp_path / "t.csv").write_text("name,label\n/data/abcdefghijk_000010_000020.webm,4\nother_000001_000011,0\n")
    words = ["index", str(part), "--out", str(tmp_path / "out"), "--labels", str(tmp_path / "t.csv"), "--workers", "1"]
    refused = CliRunner().invoke(app, words)
    assert "has the columns name, label" in str(refused.exception)
    done = CliRunner().invoke(app, [*words, "--match", "name", "--json"])
    assert done.exit_code == 0, done.output
    assert '"without_label": 1' in done.output
    assert labels_of(tmp_path / "out") == [4, -1, 0]


def test_a_table_of_other_samples_is_refused_with_a_name_of_each(part, tmp_path):
    (tmp_path / "t.csv").write_text("id,label\nsomething,1\n")
    with pytest.raises(DatasetError, match=r"does not match any sample: .*'something', .*'train/abcdefghijk_000010_"):
        index_tars([part], tmp_path / "out", labels=tmp_path / "t.csv", workers=0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,class\na,1\n", "but no 'label'"),
        ("id,label\na,1\na,2\n", "line 3 has a different label for 'a' than an earlier line"),
        ("id,label\n,1\n", "line 2 has an empty id"),
    ],
)
def test_a_wrong_table_names_its_line(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DatasetError) as caught:
        LabelTable.read(tmp_path / "t.csv")
    assert says in str(caught.value)


def test_an_id_of_several_segments_names_none_of_them(tmp_path):
    (tmp_path / "t.csv").write_text("label,youtube_id,time_start,time_end\na,x,1,11\nb,x,20,30\nc,y,5,15\n")
    table = LabelTable.read(tmp_path / "t.csv")
    assert [table.label(key, None) for key in ("p/x_000001_000011", "x_000020_000030", "x", "y", "z")] == [
        *("a", "b", None, "c", None)
    ]


def test_tars_without_any_label_are_taken_and_this_is_said(part, tmp_path, caplog):
    assert index_tars([part], tmp_path / "out", workers=0).samples == 3
    assert labels_of(tmp_path / "out") == [-1, -1, -1]
    assert "none of the 3 samples has a label in `json` or `cls`; add them with --labels train.csv" in caplog.text


def test_texts_beside_videos_are_fields_and_pictures_are_refused_before_anything_is_read(part, tmp_path):
    data = (part.parent / "raw.mp4").read_bytes()
    members = [(f"{n}.{kind}", made) for n in "ab" for kind, made in (("mp4", data), ("txt", f"caption {n}".encode()))]
    for folder in ("texts", "pictures"):
        (tmp_path / folder).mkdir()
    write_tar(tmp_path / "texts" / "t.tar", members)
    index_tars([tmp_path / "texts"], workers=0)
    options = {"batch_size": 2, "shuffle": False, "seed": 0, "device": "cpu"}
    loader = video_loader(tmp_path / "texts", clip=VideoClip(frames=2, size=32), fields=("txt",), **options)
    (batch,) = loader
    loader.close()
    assert dict(zip(batch.key, batch.fields["txt"], strict=True)) == {"a": "caption a", "b": "caption b"}
    write_tar(tmp_path / "pictures" / "p.tar", [("a.jpg", b"x"), ("a.txt", b"y")])
    with pytest.raises(ValueError, match=r"contains jpg, but images cannot be indexed\. Use `maskstream"):
        index_tars([tmp_path / "pictures"], workers=0)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["p.tar"]
