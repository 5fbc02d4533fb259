"""Lists as AudioSet, AVA, ActivityNet, Hugging Face and OpenVid publish them: windows and fields, read anew."""

import csv
import io
import json

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from maskstream.pipelines import image_loader, video_loader
from maskstream.pipelines.modalities.video.clip import VideoClip
from maskstream.preprocess import DATASETS, make_shards
from maskstream.preprocess.datasets import chosen_dataset
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.manifest import Manifest

from ..encode.sounds import wave, write_sound
from ..raw_files import put


def samples(split):
    """The json and the index of each sample by its source."""
    manifest = Manifest.load(split)
    found = [json.loads(manifest.store.read(*manifest.member(i, "json"))) for i in range(len(manifest))]
    return manifest, {about["source"]: (i, about) for i, about in enumerate(found)}


def pixels(video):
    with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(np.int16)


def numbers(split, index, whole):
    """The numbers of a sample's frames in its raw video: of those that look alike."""
    got, wanted = pixels(split.store.read(*split.member(index, "mp4"))), pixels(whole)
    return [int(np.abs(wanted - frame).mean(axis=(1, 2, 3)).argmin()) for frame in got]


AUDIOSET = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 1.500, 4.500, "/m/09x0r,/t/dd00088"
--ZhevVpy1s, 0.250, 3.250, "/m/012xff"
cutcutcutcu, 30.000, 33.000, "/m/09x0r"
"""


def test_audioset(tmp_path):
    raw = tmp_path / "raw"
    put(raw / "balanced_train_segments.csv", AUDIOSET)
    put(
        raw / "class_labels_indices.csv",
        'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush"\n2,/m/012xff,"Toothbrush"\n',
    )
    (raw / "audio").mkdir()
    for seed, name in enumerate(("--PJHxphWEs", "--ZhevVpy1s", "cutcutcutcu_30.000")):
        write_sound(raw / f"audio/{name}.wav", wave(16000 * (3 if "_" in name else 6), seed=seed), 16000, "pcm_s16le")
    make, _ = chosen_dataset("audioset", ["whole=true"])
    report = make_shards(make, raw, tmp_path / "out", workers=0)
    assert report.splits["train"].counts["samples"] == 3
    manifest, found = samples(tmp_path / "out/train")
    lines = [line for line in (raw / "balanced_train_segments.csv").read_text().splitlines() if line[0] != "#"]
    for video, start, end, _ in csv.reader(lines, skipinitialspace=True):
        i, about = found[f"{video}_{float(start):g}_{float(end):g}"]
        got, rate = sf.read(io.BytesIO(manifest.store.read(*manifest.member(i, "flac"))), dtype="int16")
        file = next((raw / "audio").glob(f"{video}*"))
        first, stop = (0, 3 * rate) if "_" in file.stem else (round(float(start) * rate), round(float(end) * rate))
        np.testing.assert_array_equal(got, sf.read(file, dtype="int16", start=first, stop=stop)[0])
        assert about["label"] == about["labels"][0]
    assert found["--PJHxphWEs_1.5_4.5"][1]["labels"] == [0, 1]


AVA = """1j20qq1JyX4,0002,0.077,0.151,0.283,0.811,2,1
1j20qq1JyX4,0002,0.332,0.194,0.481,0.891,1,2
1j20qq1JyX4,0002,0.332,0.194,0.481,0.891,3,2
1j20qq1JyX4,0003,0.1,0.2,0.3,0.4,3,1
1j20qq1JyX4,0004,0.1,0.2,0.3,0.4,3,1
"""
ACTIONS = 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem {\n  name: "crouch/kneel"\n  id: 3\n}\n'


@pytest.mark.slow
def test_ava(tmp_path, make_video):
    raw = tmp_path / "raw"
    make_video("raw/videos/1j20qq1JyX4.mkv", 150, options={"g": "25"})
    make_video("raw/videos/valvalvalva.mp4", 100)
    put(raw / "annotations/ava_train_v2.2.csv", AVA)
    put(raw / "annotations/ava_val_v2.2.csv", "valvalvalva,0002,0.1,0.2,0.3,0.4,3,5\n")
    put(raw / "annotations/ava_train_excluded_timestamps_v2.2.csv", "1j20qq1JyX4,0004\n")
    put(raw / "annotations/ava_action_list_v2.2_for_activitynet_2019.pbtxt", ACTIONS)
    make_shards("ava", raw, tmp_path / "out", workers=0, as_is=True)
    manifest, found = samples(tmp_path / "out/train")
    assert manifest.info["label_names"] == ["0", "bend/bow (at the waist)", "2", "crouch/kneel"]
    table = [line.split(",") for line in AVA.splitlines()]
    for time in (2, 3):
        i, about = found[f"1j20qq1JyX4:{time}"]
        rows = [row for row in table if row[1] == f"000{time}"]
        assert about["box"] == [[float(corner) for corner in row[2:6]] for row in rows]
        assert [about["action"], about["person"]] == [[int(row[column]) for row in rows] for column in (6, 7)]
        assert about["labels"] == sorted({int(row[6]) for row in rows})
        frames = [n for n in range(150) if time - 1.5 <= n / 25 < time + 1.5]
        assert numbers(manifest, i, raw / "videos/1j20qq1JyX4.mkv") == frames
    assert len(found) == 2
    loader = video_loader(
        tmp_path / "out/train",
        clip=VideoClip(frames=2, stride=1, size=32),
        fields=("box", "action", "labels"),
        batch_size=2,
        shuffle=False,
    )
    batch = next(iter(loader))
    loader.close()
    assert batch.fields["box"].shape == (2, 3, 4)
    assert sorted(batch.fields["labels"].sum(dim=1).tolist()) == [1.0, 3.0]
    put(raw / "annotations/ava_train_v2.2.csv", "x,0002,0.1,0.2,1.3,0.4,3,5\n")
    with pytest.raises(DatasetError, match=r"line 1 has the x2 '1\.3', not a number from 0 to 1"):
        DATASETS["ava"](raw)


ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [],
    "database": {
        "sJFgo9H6zNo": {
            "duration": 4.0,
            "subset": "training",
            "resolution": "64x48",
            "url": "https://www.youtube.com/watch?v=sJFgo9H6zNo",
            "annotations": [
                {"segment": [0.5, 1.9], "label": "Fun sliding down"},
                {"segment": [2.02, 4.3], "label": "Beer pong"},
            ],
        },
        "V1zhqaGFY2A": {
            "duration": 2.0,
            "subset": "validation",
            "annotations": [{"segment": [0, 2], "label": "Beer pong"}],
        },
        "testtesttes": {"duration": 2.0, "subset": "testing", "annotations": []},
    },
}


@pytest.mark.slow
def test_activitynet(tmp_path, make_video):
    raw = tmp_path / "raw"
    make_video("raw/videos/v_sJFgo9H6zNo.mp4", 100, options={"g": "25"})
    make_video("raw/videos/V1zhqaGFY2A.webm", 50, codec="libvpx")
    put(raw / "activity_net.v1-3.min.json", ACTIVITYNET)
    report = make_shards("activitynet", raw, tmp_path / "out", workers=0, as_is=True)
    assert {split: one.counts["samples"] for split, one in report.splits.items()} == {"train": 2, "val": 1}
    manifest, found = samples(tmp_path / "out/train")
    assert manifest.info["label_names"] == ["Beer pong", "Fun sliding down"]
    for source, first, stop, label in (("0.5-1.9", 13, 48, 1), ("2.02-4.3", 51, 100, 0)):
        i, about = found[f"sJFgo9H6zNo:{source}"]
        assert numbers(manifest, i, raw / "videos/v_sJFgo9H6zNo.mp4") == list(range(first, stop))
        assert (about["label"], about["video"], f"{about['start']}-{about['end']}") == (label, "sJFgo9H6zNo", source)
    put(raw / "activity_net.v1-3.min.json", json.dumps(ACTIVITYNET).replace("[0.5, 1.9]", "[3, 1]"))
    with pytest.raises(DatasetError, match=r"'sJFgo9H6zNo' has the segment \[3\.0, 1\.0\]; its end must be after"):
        DATASETS["activitynet"](raw)


def test_audiofolder_of_hugging_face(tmp_path):
    """A metadata.csv in the folder of each split. Digits are numbers only if all of a column are."""
    raw = tmp_path / "raw"
    for n, split in enumerate(("train", "train", "test")):
        (raw / split / "data").mkdir(parents=True, exist_ok=True)
        write_sound(raw / split / f"data/{n}.wav", wave(8000, seed=n), 16000, "pcm_s16le")
    put(raw / "train/metadata.csv", "file_name,transcription,speaker_id\ndata/0.wav,Hello.,7\ndata/1.wav,12,9\n")
    put(raw / "test/metadata.csv", "file_name,transcription,speaker_id\ndata/2.wav,Bye.,7\n")
    dataset = DATASETS["audio-folder"](raw)
    assert dataset.doubt == ""
    for split, sources in dataset.splits.items():
        as_text = pc.ConvertOptions(column_types={"transcription": pa.string()})
        table = pc.read_csv(raw / split / "metadata.csv", convert_options=as_text).to_pylist()
        assert [one.id for one in sources] == [f"{split}/{row['file_name']}" for row in table]
        assert [one.path for one in sources] == [raw / split / row["file_name"] for row in table]
        assert [one.meta["speaker_id"] for one in sources] == [row["speaker_id"] for row in table]
        assert [one.meta["transcription"] for one in sources] == [row["transcription"] for row in table]


def test_imagefolder_of_hugging_face(tmp_path):
    """One metadata.jsonl, whose files lie in the folders of splits, as `datasets` writes it for detection."""
    raw = tmp_path / "raw"
    lines = []
    for n, split in enumerate(("train", "train", "val")):
        (raw / split).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(raw / f"{split}/{n}.png"), np.full((20, 24, 3), 40 * n, np.uint8))
        lines.append({"file_name": f"{split}/{n}.png", "bbox": [[n, 1, 2, 3]], "label": "cat" if n else "dog"})
    put(raw / "metadata.jsonl", lines)
    make_shards("image-folder", raw, tmp_path / "out", workers=0)
    batch = next(iter(image_loader(tmp_path / "out/train", batch_size=2, fields=("bbox",), shuffle=False)))
    pictures = zip(batch.image, batch.fields["bbox"], batch.label.tolist(), strict=True)
    found = {int(image.float().mean()): (box.tolist(), label) for image, box, label in pictures}
    assert found == {40 * n: ([line["bbox"][0]], int(not n)) for n, line in enumerate(lines[:2])}
    assert [one.id for one in DATASETS["image-folder"](raw).splits["val"]] == ["val/2.png"]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_openvid(tmp_path, make_video, form):
    """Names of columns with spaces, videos in a folder beside the list, and facts that samples have of their own."""
    raw = tmp_path / "raw"
    table = pa.table(
        {
            "video": ["---_iRTHryQ_13_0to241.mp4", "--0CYOh-4qE_2_0to199.mp4"],
            "caption": ["A man, in a suit.", "2 cars"],
            "aesthetic score": [5.25, 4.0],
            "motion score": [3.5, 7.25],
            "temporal consistency score": [0.99, 1.0],
            "camera motion": ["static", "pan_left"],
            "frame": [12, 10],
            "fps": [25.0, 25.0],
            "seconds": [0.48, 0.4],
        }
    )
    for row in table.to_pylist():
        make_video(f"raw/videos/{row['video']}", row["frame"])
    (pc.write_csv if form == "csv" else pq.write_table)(table, raw / f"OpenVid-1M.{form}")
    make_shards("folder", raw, tmp_path / "out", workers=0)
    names = [name for name in table.column_names if name not in ("video", "fps")]
    loader = video_loader(
        tmp_path / "out/train",
        clip=VideoClip(frames=2, stride=1, size=32),
        fields=(*names, "column_fps", "n_frames"),
        batch_size=2,
        shuffle=False,
    )
    fields = next(iter(loader)).fields
    loader.close()
    assert fields["frame"].tolist() == fields["n_frames"].tolist()
    order = [table["caption"].to_pylist().index(text) for text in fields["caption"]]
    for name in names:
        got = fields[name] if isinstance(fields[name], list) else fields[name].tolist()
        assert got == table[name].take(order).to_pylist()
    assert fields["column_fps"].tolist() == [25.0, 25.0]
