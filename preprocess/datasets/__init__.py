"""Raw datasets, one file each: a function from the folder of the raw data to its sources."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .audio_folder import audio_folder
from .audioset import audioset
from .audiovisual_folder import audiovisual_folder
from .cylinder_flow import cylinder_flow
from .dataset import Dataset, Source
from .esc50 import esc50
from .folder import folder
from .hmdb51 import hmdb51
from .k400 import k400
from .las import las
from .librispeech import librispeech
from .mesh_folder import mesh_folder
from .meshgraphnets import meshgraphnets
from .microphones import microphones
from .modelnet40 import modelnet40
from .points_folder import points_folder
from .sample import sample
from .sample_audio import sample_audio
from .sample_audiovisual import sample_audiovisual
from .sample_mesh import sample_mesh
from .sample_points import sample_points
from .shapenet import shapenet
from .ssv2 import ssv2
from .ucf101 import ucf101
from .vggsound import vggsound

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "sample": sample,
    "k400": k400,
    "ssv2": ssv2,
    "ucf101": ucf101,
    "ucf101-2": partial(ucf101, fold=2),
    "ucf101-3": partial(ucf101, fold=3),
    "hmdb51": hmdb51,
    "hmdb51-2": partial(hmdb51, fold=2),
    "hmdb51-3": partial(hmdb51, fold=3),
    "folder": folder,
    "audioset": audioset,
    "audioset-balanced": partial(audioset, balanced=True),
    "esc50": esc50,
    "esc50-2": partial(esc50, fold=2),
    "esc50-3": partial(esc50, fold=3),
    "esc50-4": partial(esc50, fold=4),
    "esc50-5": partial(esc50, fold=5),
    "librispeech": librispeech,
    "microphones": microphones,
    "audio-folder": audio_folder,
    "sample-audio": sample_audio,
    "audioset-video": partial(audioset, videos=True),
    "audioset-video-balanced": partial(audioset, videos=True, balanced=True),
    "vggsound": vggsound,
    "audiovisual-folder": audiovisual_folder,
    "sample-audiovisual": sample_audiovisual,
    "modelnet40": modelnet40,
    "shapenet": shapenet,
    "las": las,
    "points-folder": points_folder,
    "sample-points": sample_points,
    "mesh-folder": mesh_folder,
    "meshgraphnets": meshgraphnets,
    "cylinder-flow": cylinder_flow,
    "sample-mesh": sample_mesh,
}

__all__ = ["DATASETS", "Dataset", "Source"]
