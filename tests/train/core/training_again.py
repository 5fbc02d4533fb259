"""Trainings one after the other in the same processes, by torchrun. Rank 0 comes late to the second.

python training_again.py DATA OUT RUNS
"""

import os
import sys
import time

from until_told import RECIPE

from maskstream.train import train


def main():
    data, out, runs = sys.argv[1:]
    for run in range(int(runs)):
        if os.environ["RANK"] == "0":
            time.sleep(run == 1)
        result = train(RECIPE, data, f"{out}/{run}", steps=2, device="cpu", threads=1, progress=False)
        print(f"run {run} ended at step {result.step}", flush=True)


if __name__ == "__main__":
    main()
