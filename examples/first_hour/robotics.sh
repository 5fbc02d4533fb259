#!/usr/bin/env bash
# Videos, actions and states of a robot as LeRobot keeps them, to three steps of MGMAE.
#
#   RAW=/data/aloha examples/first_hour/robotics.sh
#
# RAW is a dataset of LeRobot in the format v2.0, v2.1 or v3.0, such as `hf download --repo-type dataset USER/NAME
# --local-dir RAW` leaves:
#
#   meta/info.json, meta/episodes/chunk-000/file-000.parquet
#   data/chunk-000/file-000.parquet, videos/CAMERA/chunk-000/file-000.mp4
#
# Without RAW, five episodes of a simulated arm are laid out like that. What is made lies in OUT.
set -euo pipefail
here=$(dirname "$0")
OUT=${OUT:-data/first_hour/robotics}
if [ -z "${RAW:-}" ]; then
  RAW=$OUT/raw
  python "$here/make_raw.py" lerobot "$RAW"
fi

# A sample is one camera of one episode. Its frames, actions and states keep their places.
# --profile copy keeps the packets as they are, where each episode begins with a key frame.
maskstream shards lerobot --root "$RAW" --out "$OUT/shards"

# The actions and states of the frames that a clip shows, the task as text, and which camera it was.
python - "$OUT/shards/train" <<'PYTHON'
import sys

from maskstream.pipelines import VideoClip, masks, video_loader

loader = video_loader(
    sys.argv[1],
    clip=VideoClip(frames=8, stride=4, size=64),
    mask=masks.Tube(ratio=0.75),
    fields=("action", "state", "task", "camera"),
    batch_size=4,
    seed=0,
)
batch = next(iter(loader))
print("video", tuple(batch.video.shape), "actions", tuple(batch.fields["action"].shape))
print(batch.fields["task"][0], "|", batch.fields["camera"][0])
PYTHON

# Three steps of masks that follow the motion; without --steps and --batch-size it is the whole recipe.
maskstream train mgmae-tiny --data "$OUT/shards/train" --out "$OUT/run" --steps 3 --batch-size 2
