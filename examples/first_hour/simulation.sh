#!/usr/bin/env bash
# MeshGraphNets' simulations as DeepMind ships them, to three steps of MeshMask.
#
#   RAW=/data/cylinder_flow examples/first_hour/simulation.sh
#
# Needs: pip install 'maskstream[meshes]', and tensorboard if there is no RAW.
# RAW holds what download_dataset.sh leaves (TensorFlow is not needed), or conversions to HDF5:
#
#   meta.json, train.tfrecord, valid.tfrecord, test.tfrecord
#
# Without RAW, four small flows are computed and laid out like that. What is made lies in OUT.
set -euo pipefail
here=$(dirname "$0")
OUT=${OUT:-data/first_hour/simulation}
if [ -z "${RAW:-}" ]; then
  RAW=$OUT/raw
  python "$here/make_raw.py" meshgraphnets "$RAW"
fi

# A trajectory is a sample: its mesh once, and its fields at every step.
maskstream shards meshgraphnets --root "$RAW" --out "$OUT/shards"

# Fields, nodes, cells and steps, as meta.json names them.
maskstream inspect "$OUT/shards/train"

# Three steps of pre-training with masked nodes; without --steps it is the whole recipe.
maskstream train meshmask-tiny --data "$OUT/shards/train" --out "$OUT/run" --steps 3

# Next: `maskstream train meshmask-tiny-next --initial OUT/run/model.safetensors` learns to predict the next step, and
# `maskstream paper meshmask` predicts whole trajectories and compares them.
