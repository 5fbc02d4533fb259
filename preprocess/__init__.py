"""Convert raw media into shards: datasets, encoders and the job that runs them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .datasets import DATASETS
    from .encode.audio.encoder import AudioEncoder
    from .encode.audiovisual.encoder import AudioVisualEncoder
    from .encode.image.encoder import ImageEncoder
    from .encode.image_text.encoder import ImageTextEncoder
    from .encode.limits import Limits
    from .encode.mesh.encoder import MeshEncoder
    from .encode.points.encoder import PointEncoder
    from .encode.pose.encoder import PoseEncoder
    from .encode.text.encoder import TextEncoder
    from .encode.video.encoder import VideoEncoder
    from .encode.video.profile import PROFILES, VideoProfile
    from .executors.base import Executor
    from .executors.local import LocalExecutor
    from .executors.ray import RayExecutor
    from .foreign import IndexReport, index_tars
    from .job.shards import JobReport, SplitReport, make_shards
else:
    from maskstream.shards.lazy import lazy_names

    __getattr__ = lazy_names(
        __name__,
        {
            "datasets": "DATASETS",
            "encode.audio.encoder": "AudioEncoder",
            "encode.audiovisual.encoder": "AudioVisualEncoder",
            "encode.image.encoder": "ImageEncoder",
            "encode.image_text.encoder": "ImageTextEncoder",
            "encode.limits": "Limits",
            "encode.mesh.encoder": "MeshEncoder",
            "encode.points.encoder": "PointEncoder",
            "encode.pose.encoder": "PoseEncoder",
            "encode.text.encoder": "TextEncoder",
            "encode.video.encoder": "VideoEncoder",
            "encode.video.profile": "PROFILES VideoProfile",
            "executors.base": "Executor",
            "executors.local": "LocalExecutor",
            "executors.ray": "RayExecutor",
            "foreign": "IndexReport index_tars",
            "job.shards": "JobReport SplitReport make_shards",
        },
    )

__all__ = [
    "DATASETS",
    "PROFILES",
    "AudioEncoder",
    "AudioVisualEncoder",
    "Executor",
    "ImageEncoder",
    "ImageTextEncoder",
    "IndexReport",
    "JobReport",
    "Limits",
    "LocalExecutor",
    "MeshEncoder",
    "PointEncoder",
    "PoseEncoder",
    "RayExecutor",
    "SplitReport",
    "TextEncoder",
    "VideoEncoder",
    "VideoProfile",
    "index_tars",
    "make_shards",
]
