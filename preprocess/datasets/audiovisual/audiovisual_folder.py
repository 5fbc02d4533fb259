"""Any folder of videos with sound: one folder per class, or a list, as `folder` has it for videos without."""

from __future__ import annotations

from pathlib import Path

from ...encode.audiovisual.encoder import AudioVisualEncoder
from ..dataset import Dataset
from ..folder import folder


def audiovisual_folder(root: Path) -> Dataset:
    """The splits of a folder of videos, each with its sound track; DatasetError where there is none, or the list is not
    as `folder` has it.
    """
    return folder(root, name="audiovisual-folder", encoder=AudioVisualEncoder())
