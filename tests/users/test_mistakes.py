"""What users of the first week get wrong: each message says what was got, what is legal, and what to do.

`tests/pipelines/test_mistakes.py` has those of the arguments of loaders, `tests/examples/test_mistakes.py` those of raw
data in the layouts of publishers.
"""

import io
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from maskstream.shards import DatasetInfo, Manifest, Sample, finish_split, json_member, video_member, write_shard

from .conftest import Command, command_in, texture, write_video

LISTS = {
    "lable": "path,lable\n0.mp4,a\n1.mp4,b\n",
    "class": "file,class\n0.mp4,a\n1.mp4,b\n",
    "reversed": "path,label,start,end\n0.mp4,a,1,0.5\n1.mp4,b,0,1\n",
    "missing": "path,label\n0.mp4,a\n2.mp4,b\n",
    "longer": "path,label,start,end\n0.mp4,a,0,60\n1.mp4,b,0,1\n",
    "twice": "path,label\n0.mp4,a\n0.mp4,b\n",
    "words": "path,label,start,end\n0.mp4,a,soon,later\n1.mp4,b,0,1\n",
    "several": "path,label\n0.mp4,a;b\n1.mp4,b\n",
    "overlap": "path,label,split,start,end\n0.mp4,a,train,0,1\n0.mp4,b,val,0.5,1.2\n",
}
MASK = """
from dataclasses import dataclass
from maskstream.pipelines.masks import Mask

@dataclass(frozen=True, kw_only=True, slots=True)
class Loud(Mask):
    needs = frozenset({"spectrogram"})

    def hide(self, grid, draw):
        return draw.cues.spectrogram.ravel() > 0
"""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw clips, lists that are wrong, splits of videos and texts, and a run."""
    root = tmp_path_factory.mktemp("week")
    for number in range(6):
        write_video(root / f"raw/{'ab'[number % 2]}/{number}.mp4", [texture(number)] * 40)
    for name, text in LISTS.items():
        (root / name).mkdir()
        for number in range(2):
            shutil.copy(root / f"raw/{'ab'[number]}/{number}.mp4", root / name)
        (root / name / "list.csv").write_text(text)
    (root / "flat").mkdir()
    shutil.copy(root / "raw/a/0.mp4", root / "flat")
    (root / "links/a").mkdir(parents=True)
    (root / "links/a/0.mp4").symlink_to(root / "raw/a/0.mp4")
    for name, lines in {
        "corpus": [f'{{"text": "one two {n}"}}' for n in range(30)],
        "other-column": ['{"txt": "one"}'],
        "half-json": ['{"text": "one"}', '{"text": '],
    }.items():
        (root / name).mkdir()
        (root / name / "train.jsonl").write_text("\n".join(lines))
    png = io.BytesIO()
    Image.new("RGB", (16, 16)).save(png, "png")
    (root / "pictures").mkdir()
    with tarfile.open(root / "pictures/a.tar", "w") as tar:
        info = tarfile.TarInfo("0.png")
        info.size = len(png.getvalue())
        tar.addfile(info, io.BytesIO(png.getvalue()))
    (root / "ownmask.py").write_text(MASK)
    with pytest.MonkeyPatch.context() as patch:
        maskstream = command_in(root, patch)
        maskstream("shards folder --root raw --out shards --workers 1 --val 0.34")
        maskstream("shards jsonl --root corpus --out texts --workers 1 --set tokenizer=train:wordpiece:300")
        small = "--set clip.frames=4 --set clip.size=32 --set data.patch=8 --set batch_size=2"
        maskstream(f"train videomae-tiny --data shards/train --out run --steps 1 {small}")
    two_cameras(root)
    return root


def two_cameras(root: Path) -> None:
    """A split `both` whose samples have two videos."""
    one = Manifest.load(root / "shards/train")
    video = video_member(one.store.read(*one.member(0, "mp4")), one.video(0))
    members = {"cam0.mp4": video, "cam1.mp4": video, "json": json_member({})}
    (root / "both").mkdir()
    record = write_shard(root / "both/both-000000.tar", [Sample(key="0", members=members, source="0")])
    info = DatasetInfo(dataset="both", split="train", modality="video", profile="train")
    finish_split(root / "both", info, [record], [])


@pytest.fixture
def maskstream(room: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.syspath_prepend(str(room))
    return command_in(room, monkeypatch)


TRAIN = "train videomae-tiny --data shards/train --out new --steps 1"
FOLDER = "shards folder --out new --workers 1 --root"
MISTAKES = (
    # Raw data and lists
    (
        f"{FOLDER} nothere",
        "the folder nothere does not exist",
        "ROOT/train/CLASS/*.mp4",
        "or list them in ROOT/list.csv",
    ),
    (f"{FOLDER} flat", "the only video would have no label", "ROOT/train/CLASS", "If this is meant, add --as-is"),
    (f"{FOLDER} lable", "has the column 'lable'", "if you meant 'label'", "rename it"),
    (f"{FOLDER} class", "has the column 'class' but no label", "'label'", "rename it"),
    (f"{FOLDER} reversed", "line 2 has the end 0.5 s", "not after its start 1 s", "Correct or remove the line"),
    (f"{FOLDER} missing", "there is no file (1)", "at most 5.0% may be", "--max-rejects 0.51"),
    (f"{FOLDER} links", "not below links", "if you trust the author of the list", "Move them there"),
    (f"{FOLDER} longer", "ends at 1.60 s, within the part from 0 s to 60 s", "(list.csv, line 2)", "Fix the sources"),
    (f"{FOLDER} twice", "0.mp4", "line", "key"),
    (f"{FOLDER} words", "soon", "seconds", "line 2"),
    (f"{FOLDER} several", "a;b", "one class", "separator=;"),
    (f"{FOLDER} overlap", "0.mp4", "overlap", "--as-is"),
    ("shards foldr --root raw", "'foldr' is not a known dataset", "expected a-okvqa", "did you mean 'folder'?"),
    ("shards audio-folder --root raw", "raw contains no audio", "ROOT/train/CLASS/*.wav", "list them in ROOT/list.csv"),
    ("shards image-folder --root raw", "raw contains no image", "ROOT/train/CLASS/*.jpg", "list them in ROOT/list.csv"),
    ("shards points-folder --root raw", "raw contains no points", "ROOT/train/CLASS", "list them in ROOT/list.csv"),
    ("shards parquet-image-text --root raw", "contains no Parquet files", "ROOT/data/train-00000", "hf download"),
    ("shards lerobot --root raw", "raw/meta/info.json does not exist", "ROOT/data/ and ROOT/videos/", "hf download"),
    ("shards jsonl --root raw", "contains no documents", "ROOT/train.jsonl", "Arrange the texts"),
    ("shards jsonl --root half-json --out new-j", "is not valid JSON", "at most 5.0% may be", "Fix the sources"),
    ("shards jsonl --root other-column --out new-o", "has no text", "'text'", "it has ['txt']"),
    ("index raw --out new", "no *.tar found in raw", "tars", "pass tars or their folder"),
    ("index pictures --out new", "contains png", "images cannot be indexed", "Use `maskstream shards image-folder`"),
    # How shards are made
    (f"{FOLDER} raw --set nothing=3", "no field 'nothing'", "has video, damage, least_whole", "to set"),
    (f"{FOLDER} raw --profile quick", "got 'quick'", "one of train, fast, copy, fps", "--profile"),
    (f"{FOLDER} raw --part 4/3", "the part 4/3", "expected 1/N to N/N", "such as 3/8"),
    ("shards folder --root raw --out shards --val 0.34 --profile copy", "saved train, here copy", "settings", "choose"),
    ("shards jsonl --root corpus --out new --set tokenizer=nofolder", "'nofolder'", "tokenizer.json", "pass the path"),
    ("shards jsonl --root corpus --out new --set tokenizer=train:unigram:300", "unigram", "wordpiece or bpe", "write"),
    # Splits
    (f"{FOLDER} raw --val 2", "val=2.0", "between 0 and 1", "such as 0.05"),
    (f"{FOLDER} flat --as-is --val 0.3", "cannot divide a single sample", "`start` and `end` in a list", "add samples"),
    (f"{FOLDER} raw --val 0.3 --val-by speaker", "no field 'speaker'", "source, sample or folder", "Use one of"),
    ("split shards/train --val 0", "val=0.0", "between 0 and 1", "such as 0.05"),
    (
        "split shards/train --val 0.3 --val-by speaker --out new",
        "no field 'speaker'",
        "it has 'codec'",
        "also accepted are source",
    ),
    ("split shards --val 0.3", "shards contains the splits train", "one of them", "such as shards/train"),
    (
        "remove shards/train --keys nokeys.txt",
        "nokeys.txt cannot be read",
        "pass a text file",
        "one sample key per line",
    ),
    ("inspect raw", "no dataset.json in raw", "finished split", "create one from raw data with `maskstream shards"),
    ("verify shards", "shards contains the splits", "one of them", "such as shards/train"),
    ("flow texts/train", "contains text shards", "this loader reads video shards", "open it with text_loader"),
    # Looking
    ("preview both", "cam0.mp4, cam1.mp4", "2 components are video", "--set component=cam0.mp4"),
    ("preview both --component cam2.mp4", "component='cam2.mp4'", "cam0.mp4, cam1.mp4", "components that are video"),
    ("preview both --component cam0.mp4 --component cam0.mp4", "'cam0.mp4', 'cam0.mp4'", "each video once", "such as"),
    (
        "preview both --component cam0.mp4 --component cam2.mp4",
        "component='cam2.mp4'",
        "cam0.mp4, cam1.mp4",
        "are video",
    ),
    ("preview shards/train --mask tubes", "'tubes' is not a mask", "choose from none", "did you mean 'tube'?"),
    ("preview shards/train --mask nomodule:Nix", "'nomodule:Nix'", "cannot be imported", "to PYTHONPATH"),
    ("preview shards/train --mask ownmask:Nix", "ownmask has no 'Nix'", "the mask", "does not exist"),
    (
        "preview shards/train --mask ownmask:Loud",
        "cannot be drawn on the tokens of video",
        "which have no spectrogram",
        "choose from none",
    ),
    ("preview texts/train --mask tube", "'tube' cannot be drawn on the tokens of text", "m3ae-text", "choose from"),
    ("preview shards/train --set clip.size=30", "height=30", "positive multiple of 16", "16 and 32 are"),
    ("bench shards/train --set clip.frames=0", "got 0", "at least 1", "frames must be an integer"),
    # Training
    ("train videomae-tiny --data raw --out new", "no dataset.json in raw", "finished split", "create one"),
    (
        "train videomae-tiny --data shards --out new",
        "shards contains the splits",
        "one of them",
        "such as shards/train",
    ),
    (
        "train videomae-tny --data shards/train",
        "'videomae-tny' is not a known recipe",
        "expected",
        "did you mean 'videomae-tiny'",
    ),
    (
        "train audiomae-tiny --data shards/train",
        "contains video",
        "is for audio",
        "`maskstream recipes` lists those for video",
    ),
    ("train videomae-tiny --data both --out new", "cam0.mp4, cam1.mp4", "2 components", "--set component=cam0.mp4"),
    (
        "train videomae-tiny --data both --out new --component cam0.mp4 --component cam1.mp4",
        "component=('cam0.mp4', 'cam1.mp4') specifies 2",
        "reads one video per sample",
        "choose one, such as --component cam0.mp4",
    ),
    (
        "train bert-tiny --data texts/train --out new --component cam0.mp4",
        "no field 'data.component'",
        "data has",
        "print all fields with --print-config",
    ),
    (f"{TRAIN} --set clip.framez=4", "'clip.framez'", "clip has kind, frames", "did you mean 'clip.frames'"),
    (f"{TRAIN} --set clip.frames=four", "got 'four'", "of type int", "data.clip.frames"),
    (f"{TRAIN} --set clip.short=wrap", "got 'wrap'", "expected 'repeat', 'loop', 'skip', 'error'", "data.clip.short"),
    (f"{TRAIN} --set clip.short=error --set clip.frames=64", "shorter", "64 frames", "short="),
    (f"{TRAIN} --set clip.size=33", "height=33", "positive multiple of 8", "32 and 40 are"),
    (f"{TRAIN} --set batch_size=64", "4 samples do not fill", "global batch of 64", "lower batch_size (--batch-size)"),
    (f"{TRAIN} --set mask.ratio=1.5", "got 1.5", "from 0 to 1", "ratio must be a number"),
    (f"{TRAIN} --set mask.kind=tube", "'tube' is not a kind of Mask", "expected Block, Box", "did you mean 'Tube'?"),
    (
        f"{TRAIN} --set mask.kind=ownmask:Loud",
        "Loud() needs spectrogram",
        "only cuts, energy, flow, frames",
        "use a different mask",
    ),
    (f"{TRAIN} --set 'data.fields=[\"caption\"]'", "no field 'caption'", "it has label, source", "or remove the field"),
    (f"{TRAIN} --device cuda", "device='cuda'", "no CUDA device", "use 'auto' or 'cpu'"),
    (f"{TRAIN} --initial no.safetensors", "no.safetensors is missing", "model.safetensors", "pass a"),
    (
        "train bert-tiny --data texts/train --out new-b --set model.vocabulary=5",
        "ids",
        "the model has 5",
        "set model.v",
    ),
    # After a run
    (
        "probe run --data shards/train --test shards/train",
        "measures memorisation",
        "not trained on",
        "`maskstream split`",
    ),
    ("report run --data shards/train", "the split that run was trained on", "not trained on", "--same-split"),
    ("evaluate run --data shards/train", "the split that run was trained on", "not trained on", "--same-split"),
    ("probe run --data shards/train --test raw", "no dataset.json in raw", "finished split", "create one"),
    (
        "export shards/train --out new",
        "shards/train/run.json does not exist",
        "pass a folder",
        "written by `maskstream train`",
    ),
    (
        "export run --out new",
        "positions='grid'",
        "takes square video",
        "a small recipe that can be exported is `videomae-small --set",
    ),
)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "got", "legal", "do"), MISTAKES, ids=[line for line, *_ in MISTAKES])
def test_a_mistake_is_answered_in_a_sentence(
    maskstream: Command, room: Path, line: str, got: str, legal: str, do: str
) -> None:
    shutil.rmtree(room / "new", ignore_errors=True)
    said = maskstream(line, fails=True).text
    assert [word for word in (got, legal, do) if word not in said] == [], said
    assert not (room / "new/train/dataset.json").exists()
    assert "caption" not in line or not (room / "new").exists()  # a field is looked for before the run is begun
