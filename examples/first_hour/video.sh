#!/usr/bin/env bash
# Kinetics-400 in the parts that it is downloaded in, to three steps of VideoMAE.
#
#   RAW=/data/k400 examples/first_hour/video.sh
#
# Needs: pip install 'maskstream[archives]', for parts that are compressed.
# RAW holds what the scripts of the CVD Foundation leave, nothing unpacked:
#
#   annotations/train.csv, annotations/val.csv
#   k400_targz/train/part_0.tar.gz, ...; k400_targz/val/part_0.tar.gz, ...
#
# Without RAW, four real clips are laid out like that. What is made lies in OUT (data/first_hour/video).
set -euo pipefail
here=$(dirname "$0")
OUT=${OUT:-data/first_hour/video}
if [ -z "${RAW:-}" ]; then
  RAW=$OUT/raw
  python "$here/make_raw.py" k400 "$RAW"
fi

# What is expected below RAW, and where to get it. `maskstream datasets` lists all datasets.
maskstream datasets k400

# The videos are read out of the parts one by one, encoded for strided decoding, and checked. A run that was interrupted
# goes on where it stopped. Videos that a list names and no part has become rejects with a reason, in rejects.parquet;
# if yours lack more than 5 %, say so with --max-rejects 0.2.
maskstream shards k400 --root "$RAW" --out "$OUT/shards"

# Samples, hours, codecs, how many of each label. Look here whether the labels are yours.
maskstream inspect "$OUT/shards/train"

# Three steps. Leave out --steps and --batch-size for the whole recipe; `maskstream recipes` lists all of them, and
# --set changes any field, such as --set mask.ratio=0.8. The same command goes on where a run stopped.
maskstream train videomae-tiny --data "$OUT/shards/train" --out "$OUT/run" --steps 3 --batch-size 2

# Next: `maskstream preview` shows clips and masks, `maskstream bench` what limits the loader, `maskstream report` a run.
