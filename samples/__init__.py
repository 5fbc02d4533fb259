"""Sample sets: small data for trying out everything, downloaded from packages, simulated or generated.

Each is a function of the folder of the raw data, like the datasets of `maskstream.preprocess`, and is referenced like
your own dataset: by a name `package.module:function`. `SAMPLE_SETS` lists them by a short name, so that a file is
imported only when its set is used. The sets' own helpers are next to them: fetchers of packages, simulators, and
readers of game formats.
"""

from collections.abc import Mapping

SAMPLE_SETS: Mapping[str, Mapping[str, str]] = {
    "audio": {
        "gm-notes": "maskstream.samples.audio.gm_notes:gm_notes",
        "sample-audio": "maskstream.samples.audio.sample_audio:sample_audio",
    },
    "audiovisual": {
        "sample-audiovisual": "maskstream.samples.audiovisual.sample_audiovisual:sample_audiovisual",
    },
    "image": {
        "fashion-mnist": "maskstream.samples.image.fashion_mnist:fashion_mnist",
        "sample-image": "maskstream.samples.image.sample_image:sample_image",
    },
    "image-text": {
        "easy-vqa": "maskstream.samples.image_text.easy_vqa:easy_vqa",
        "easy-vqa-captions": "maskstream.samples.image_text.easy_vqa:easy_vqa_captions",
        "sample-image-text": "maskstream.samples.image_text.tuxpaint_stamps:tuxpaint_stamps",
        "scenes-counting": "maskstream.samples.image_text.scenes:scenes_counting",
        "scenes-referring": "maskstream.samples.image_text.scenes:scenes_referring",
        "tuxpaint-stamps": "maskstream.samples.image_text.tuxpaint_stamps:tuxpaint_stamps",
    },
    "mesh": {
        "cylinder-flow": "maskstream.samples.mesh.cylinder_flow:cylinder_flow",
        "sample-mesh": "maskstream.samples.mesh.cylinder_flow:sample_mesh",
    },
    "points": {
        "sample-parts": "maskstream.samples.points.sample_points:sample_parts",
        "sample-points": "maskstream.samples.points.sample_points:sample_points",
    },
    "pose": {
        "sample-pose": "maskstream.samples.pose.sample_pose:sample_pose",
    },
    "text": {
        "sample-text": "maskstream.samples.text.shakespeare:shakespeare",
        "shakespeare": "maskstream.samples.text.shakespeare:shakespeare",
        "vader": "maskstream.samples.text.vader:vader",
    },
    "trajectory": {
        "sample-trajectory": "maskstream.samples.trajectory.vizdoom_walks:sample_trajectory",
        "vizdoom-walks": "maskstream.samples.trajectory.vizdoom_walks:vizdoom_walks",
    },
    "video": {
        "metaworld": "maskstream.samples.video.metaworld:metaworld",
        "moving-fashion-mnist": "maskstream.samples.video.moving_fashion_mnist:moving_fashion_mnist",
        "sample": "maskstream.samples.video.sample:sample",
    },
}
"""Functions of the sample sets by modality and short name."""
