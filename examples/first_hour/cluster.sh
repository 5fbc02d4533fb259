#!/usr/bin/env bash
# Kinetics-400 into a bucket by several machines, and training from it on 64 GPUs; here on two processes.
#
#   RAW=/data/k400 BUCKET=s3://my-bucket/k400 examples/first_hour/cluster.sh
#
# Keys are taken as Amazon's own tools take them, never out of the URL: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
# AWS_REGION, or the role of the machine. A server of your own also needs AWS_ENDPOINT_URL, and AWS_ALLOW_HTTP=true if
# it has no https. gs:// and az:// work alike (docs/stores.md).
# Needs: pip install 'maskstream[archives]', for parts that are compressed.
# Without RAW, four real clips are laid out as Kinetics-400. Logs and the run lie in OUT.
set -euo pipefail
here=$(dirname "$0")
OUT=${OUT:-data/first_hour/cluster}
: "${BUCKET:?say where the shards go, such as BUCKET=s3://my-bucket/k400}"
case $BUCKET in
  s3://* | gs://* | az://*) ;;
  *) echo "BUCKET=$BUCKET is not a bucket URL; pass one such as s3://my-bucket/k400" >&2 && exit 2 ;;
esac
if [ -z "${RAW:-}" ]; then
  RAW=$OUT/raw
  python "$here/make_raw.py" k400 "$RAW"
fi

# Every machine writes its part of the shards: here two of one machine, on Slurm and Kubernetes as examples/cluster/ has
# it. A part that is killed is run again. The last command checks that nothing lacks and writes the manifest.
mkdir -p "$OUT"
for part in 1 2; do
  maskstream shards k400 --root "$RAW" --out "$BUCKET" --part "$part/2" --workers 1 --samples-per-shard 2 &
  parts+=($!)
done
for part in "${parts[@]}"; do wait "$part"; done
maskstream shards k400 --root "$RAW" --out "$BUCKET" --finish --samples-per-shard 2

# Any machine with the keys can look into the split.
maskstream inspect "$BUCKET/train"

# Training: eight nodes of eight GPUs run
#
#   srun --nodes 8 --ntasks-per-node 1 torchrun --nnodes 8 --nproc-per-node 8 --rdzv-backend c10d \
#     --rdzv-endpoint "$HEAD_NODE:29500" -m maskstream train videomae-small --data "$BUCKET/train" --out /shared/runs/k400
#
# (examples/cluster/train.sbatch). Ranks and batches are those of torchrun; each rank reads its own samples, and --cache
# keeps what was read on the node's disk. Here two processes of the CPU do three steps.
torchrun --standalone --nproc-per-node 2 -m maskstream train videomae-tiny --data "$BUCKET/train" --out "$OUT/run" \
  --cache "$OUT/cache" --device cpu --steps 3 --batch-size 1
