"""Images with texts as their publishers lay them out."""

from collections.abc import Callable
from pathlib import Path

from maskstream.preprocess.datasets.dataset import Dataset

from .image_text_folder import image_text_folder
from .knowledge_vqa import a_okvqa, infoseek, ok_vqa
from .m3ae_style import m3ae_style
from .medical_vqa import pathvqa, slake, vqa_rad
from .medthink import r_path, r_rad, r_slake
from .refcoco import refcoco

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "a-okvqa": a_okvqa,
    "image-text-folder": image_text_folder,
    "infoseek": infoseek,
    "m3ae-style": m3ae_style,
    "ok-vqa": ok_vqa,
    "pathvqa": pathvqa,
    "r-path": r_path,
    "r-rad": r_rad,
    "r-slake": r_slake,
    "refcoco": refcoco,
    "slake": slake,
    "vqa-rad": vqa_rad,
}
