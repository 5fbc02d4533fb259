"""What detectors of PySceneDetect find in a film, for scenes.py; in an environment that has it.

    python -m venv peers; peers/bin/pip install scenedetect opencv-python-headless
    python benchmarks/scenes.py ROOT --peers peers/bin/python

Prints JSON: by detector, with its default thresholds, the frames with which scenes begin, and CPU seconds. Scenes may
be as short as ours. Decoding is by OpenCV on one thread.
"""

import json
import os
import sys
import time

os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"

import cv2
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    HashDetector,
    HistogramDetector,
    SceneManager,
    ThresholdDetector,
    open_video,
)


def main() -> None:
    cv2.setNumThreads(1)
    found = {}
    for kind in (ContentDetector, AdaptiveDetector, HashDetector, HistogramDetector, ThresholdDetector):
        begun = time.process_time()
        manager = SceneManager()
        manager.auto_downscale = True
        manager.add_detector(kind(min_scene_len=4))
        manager.detect_scenes(open_video(sys.argv[1]))
        starts = [scene[0].frame_num for scene in manager.get_scene_list()][1:]
        found[kind.__name__] = {"starts": starts, "seconds": time.process_time() - begun}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
