"""Motions of the game 0 A.D.: 642 hand-made actions of soldiers, riders and citizens, 24 minutes in all.

They are downloaded as Debian's 0ad-data (1.4 GB, CC-BY-SA-3.0), whose archive (3.4 GB) is kept at ROOT/0ad-data; the
motions are unpacked to ROOT/motions once. A folder with them may be put there, such as a copy of art/animation/biped.
Labels are of names, and motions that share poses share a split.
"""

import shutil
import tempfile
import zipfile
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.preprocess.encode.pose.encoder import PoseEncoder
from maskstream.preprocess.source import Source
from maskstream.samples.debian import debian_folder
from maskstream.shards.errors import DatasetError

from .actions import LABELS, action_label
from .held_out_motions import held_out_motions

PACKAGE, INSIDE, ARCHIVE = "0ad-data", "usr/share/games/0ad/mods/public", "public.zip"
MOTIONS = "art/animation/biped/"


def zero_ad(root: Path) -> Dataset:
    """The splits, downloaded into `root`. Raises DatasetError if the download fails."""
    folder = root / "motions"
    if not folder.is_dir():
        _unpacked(debian_folder(PACKAGE, INSIDE, root) / ARCHIVE, folder)
    sources = []
    for path in sorted(folder.rglob("*.psa")):
        name = path.relative_to(folder).as_posix().removesuffix(".psa").removesuffix(".cached").removesuffix(".dae")
        sources.append(Source(id=name, path=path, label=action_label(name.rpartition("/")[2])))
    if not sources:
        raise DatasetError(f"0ad: {folder} holds no motions (.psa); remove it to unpack it again")
    encoder = PoseEncoder()
    return Dataset(name="0ad", label_names=LABELS, splits=held_out_motions(sources, encoder), encoder=encoder)


def _unpacked(archive: Path, folder: Path) -> None:
    """Unpacks the motions of people; the folder appears when all are there."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacked-") as partial:
        try:
            with zipfile.ZipFile(archive) as file:
                for name in file.namelist():
                    if name.startswith(MOTIONS) and name.endswith(".psa") and ".." not in Path(name).parts:
                        target = Path(partial) / "motions" / name.removeprefix(MOTIONS)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with file.open(name) as source, target.open("wb") as out:
                            shutil.copyfileobj(source, out)
        except (zipfile.BadZipFile, OSError) as error:
            raise DatasetError(f"0ad: {archive} cannot be unpacked ({error}); remove its folder") from error
        (Path(partial) / "motions").rename(folder)
