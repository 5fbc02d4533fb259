"""Raw datasets, one file each: a function from the folder of the raw data to its sources."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..source import Source
from .audio.audio_folder import audio_folder
from .audio.audioset import audioset
from .audio.esc50 import esc50
from .audio.librispeech import librispeech
from .audio.microphones import microphones
from .audio.sample_audio import sample_audio
from .audiovisual.audiovisual_folder import audiovisual_folder
from .audiovisual.sample_audiovisual import sample_audiovisual
from .audiovisual.vggsound import vggsound
from .dataset import Dataset
from .folder import folder
from .mesh.cylinder_flow import cylinder_flow
from .mesh.mesh_folder import mesh_folder
from .mesh.meshgraphnets import meshgraphnets
from .mesh.sample_mesh import sample_mesh
from .points.las import las
from .points.modelnet40 import modelnet40
from .points.points_folder import points_folder
from .points.sample_points import sample_points
from .points.shapenet import shapenet
from .video.hmdb51 import hmdb51
from .video.k400 import k400
from .video.sample import sample
from .video.ssv2 import ssv2
from .video.ucf101 import ucf101

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
