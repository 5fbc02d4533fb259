#!/usr/bin/env bash
# AudioSet, of which you hold the lists and some of the sound, to three steps of Audio-MAE.
#
#   RAW=/data/audioset examples/first_hour/sound.sh
#
# RAW holds the csv files of research.google.com/audioset, in RAW or in RAW/metadata, and the segments in any folder:
#
#   class_labels_indices.csv, balanced_train_segments.csv, unbalanced_train_segments.csv, eval_segments.csv
#   audio/YTID.wav, or YYTID.flac, YTID_30.mp3, YTID_30000_40000.m4a, ...
#
# Without RAW, six real segments are laid out like that. What is made lies in OUT (data/first_hour/sound).
set -euo pipefail
here=$(dirname "$0")
OUT=${OUT:-data/first_hour/sound}
if [ -z "${RAW:-}" ]; then
  RAW=$OUT/raw
  python "$here/make_raw.py" audioset "$RAW"
fi

# `--set balanced=true` takes the balanced list alone; the dataset `audioset-video` takes videos with their sound. Many
# segments of the lists cannot be had any more, so a fifth of them may be missing here; they are named in rejects.parquet.
maskstream shards audioset --root "$RAW" --out "$OUT/shards" --max-rejects 0.2

# All classes of a segment, not only the first one: a field is a row of 0 and 1 for each sample.
python - "$OUT/shards/train" <<'PYTHON'
import sys

from maskstream.pipelines import AudioClip, audio_loader

loader = audio_loader(sys.argv[1], clip=AudioClip(seconds=1.28), fields=("labels",), batch_size=2, seed=0)
batch = next(iter(loader))
print("spectrograms", tuple(batch.spectrogram.shape), "classes of each", batch.fields["labels"].sum(1).tolist())
PYTHON

# Three steps; without --steps and --batch-size it is the whole recipe.
maskstream train audiomae-tiny --data "$OUT/shards/train" --out "$OUT/run" --steps 3 --batch-size 2
