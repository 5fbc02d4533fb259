"""Cards say what is in the splits and was given, as text, and are valid Croissant."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from maskstream.cli import app
from maskstream.preprocess.curate import Told, write_card
from maskstream.preprocess.versions import remove
from maskstream.preprocess.versions.card import as_text, renew_card
from maskstream.shards.errors import DatasetError
from maskstream.shards.format.dataset import finish_split
from maskstream.shards.format.manifest import Manifest
from maskstream.shards.format.sample import DatasetInfo, Reject, Sample
from maskstream.shards.format.verify import verify
from maskstream.shards.format.writer import write_shard
from maskstream.shards.members.image import make_image_member
from maskstream.shards.members.text import json_member

HOSTILE = "a|b\n# <script>alert(1)</script> [x](javascript:y) ``` \u202e"


def write_split(out: Path, name: str) -> Path:
    """Six samples in two shards, with a licence each, hostile labels and a reject."""
    out.mkdir(parents=True)
    data = bytes(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1])
    samples = [
        Sample(
            key=f"{name}-{n}",
            members={
                "jpg": make_image_member(data, 16, 16),
                "json": json_member(
                    {"label": n % 2, "source": f"{HOSTILE}{n}", "license": ["CC0-1.0", HOSTILE][n % 2]}
                ),
            },
            source=f"{HOSTILE}{n}",
            label=n % 2,
        )
        for n in range(6)
    ]
    records = [write_shard(out / f"t-{at:06d}.tar", samples[3 * at : 3 * at + 3]) for at in range(2)]
    info = DatasetInfo(
        dataset="my pictures",
        split=name,
        modality="image",
        profile="-",
        label_names=("one", HOSTILE),
        settings={"x": HOSTILE},
    )
    finish_split(out, info, records, [Reject(source="bad", stage="open", reason=HOSTILE)])
    return out


def test_a_card_has_the_hashes_of_all_files_and_what_was_said(tmp_path):
    split = write_split(tmp_path / "set/train", "train")
    write_split(tmp_path / "set/val", "val")
    remove(split, ["train-1"])
    told = Told(licenses=("CC-BY-4.0",), creators=(HOSTILE,), rai={"dataBiases": HOSTILE}, license_by="license")
    write_card(tmp_path / "set", told)
    card = json.loads((tmp_path / "set/croissant.json").read_text())
    files = [one for one in card["distribution"] if one["@type"] == "cr:FileObject"]
    assert {one["contentUrl"] for one in files} >= {
        f"{name}/t-00000{n}.tar" for name in ("train", "val") for n in (0, 1)
    }
    for one in files:
        data = (tmp_path / "set" / one["contentUrl"]).read_bytes()
        assert (one["sha256"], one["contentSize"]) == (hashlib.sha256(data).hexdigest(), f"{len(data)} B")
    assert card["license"] == ["CC-BY-4.0", "CC0-1.0", HOSTILE]
    assert card["rai:dataBiases"] == HOSTILE
    assert "1 open" in card["rai:dataCollectionMissingData"]
    text = (tmp_path / "set/README.md").read_text()
    outside = "\n".join(text.split("\n```")[::2])  # of code, which is shown as it is
    assert HOSTILE.splitlines()[0] + "\\n" in text
    assert "<script" not in outside
    assert "](javascript" not in outside
    assert f"| 3 samples of val | {as_text(HOSTILE)} |" in text
    assert f"| 2 samples of train | {as_text(HOSTILE)} |" in text
    assert Manifest.load(split).info["fingerprint"] in text
    write_card(split)
    assert verify(split).ok
    again = (tmp_path / "set/croissant.json").read_bytes()
    write_card(tmp_path / "set", told)
    assert (tmp_path / "set/croissant.json").read_bytes() == again


def test_what_has_no_card(tmp_path):
    with pytest.raises(DatasetError, match="not a finished split, and contains none"):
        write_card(tmp_path)
    with pytest.raises(ValueError, match="'bias' is not a field of Croissant's RAI vocabulary"):
        Told(rai={"bias": "x"})
    assert CliRunner().invoke(app, ["dataset-card", str(tmp_path), "--rai", "x"]).exit_code == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_is_valid_and_gives_the_samples(tmp_path):
    """By mlcommons' own reader; names of folders, sets and labels may be anything."""
    croissant = pytest.importorskip("mlcroissant")
    split = write_split(tmp_path / "a set/train", "train")
    out, _ = write_card(split, Told(creators=(HOSTILE,), url="https://example.org", cite="x", published="2026-11-30"))
    found = croissant.Dataset(jsonld=out)
    assert not found.metadata.ctx.issues.errors
    own = {one.uuid: list(found.records(one.uuid)) for one in found.metadata.record_sets}
    (samples,) = (rows for name, rows in own.items() if "samples" in name)

    def words(rows, column):
        found = [value for row in rows for name, value in row.items() if name.endswith(column)]
        return [value.decode() if isinstance(value, bytes) else value for value in found]

    assert sorted(words(samples, "/key")) == sorted(Manifest.load(split).keys(range(6)))
    (labels,) = (rows for name, rows in own.items() if "labels" in name)
    assert words(labels, "/name") == ["one", HOSTILE]


def test_a_card_overwrites_no_file_that_it_did_not_write(tmp_path):
    split = write_split(tmp_path / "train", "train")
    told = Told(creators=(HOSTILE, "--> a"), rai={"dataBiases": HOSTILE}, license_by="license")
    (split / "README.md").write_text("# Mine\n")
    with pytest.raises(
        DatasetError, match=r"README.md was not written by `maskstream dataset-card`, .*; rename or delete it"
    ):
        write_card(split, told)
    assert {path.name for path in split.glob("*.md")} | {path.name for path in split.glob("c*")} == {"README.md"}
    assert (split / "README.md").read_text() == "# Mine\n"
    assert not renew_card(split)
    (split / "README.md").unlink()
    write_card(split, told)
    first = (split / "README.md").read_bytes()
    write_card(split)  # its own it does
    assert (split / "README.md").read_bytes() != first
    write_card(split, told)
    assert renew_card(split)
    assert (split / "README.md").read_bytes() == first
    (split / "README.md").write_bytes(first.replace(b"Licence", b"License"))
    assert not renew_card(split)
    with pytest.raises(DatasetError, match=r"or has changed since"):
        write_card(split)
    (split / "README.md").write_bytes(first)
    (split / "croissant.json").write_text('{"@context": {}}')
    with pytest.raises(DatasetError, match=r"croissant.json was not written"):
        write_card(split)
