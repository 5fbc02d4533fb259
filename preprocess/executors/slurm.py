"""Run a job on a Slurm cluster without a driver: an array job for its parts, followed by a job that finishes it.

Slurm restarts a killed array task on any node. It needs no local state: a part resumes from the records
(`job/ledger.py`). Both jobs are scripts of a few lines, which you can read, change and submit by hand.
"""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_PARTS = 1000
"""Largest array that Slurm accepts by default (MaxArraySize)."""
PARTS, FINISH = "parts.sh", "finish.sh"


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmJob:
    """Both scripts of a job.

    Attributes:
        name: Name of the job in Slurm.
        folder: Folder of the scripts and logs.
        command: Words after `maskstream` in both scripts.
        parts: Size of the array.
        for_parts: Further words of the command in the array's script.
        workers: Processes of a part; None is one per CPU that Slurm assigns.
        options: `sbatch` options of both scripts, such as --partition=x.
    """

    name: str
    folder: Path
    command: tuple[str, ...]
    parts: int
    for_parts: tuple[str, ...] = ()
    workers: int | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.parts <= MAX_PARTS:
            raise ValueError(
                f"parts={self.parts}: the number of parts must lie between 1 and {MAX_PARTS}, "
                "the largest array that Slurm supports"
            )
        for word in (self.name, str(self.folder.absolute()), *self.options):
            if {"\n", "\r", "\0"} & {*word}:  # a newline ends an #SBATCH comment, even inside quotes
                raise ValueError(
                    f"{word!r} contains a newline or null; each option in a Slurm script must be on one line"
                )

    def scripts(self) -> dict[str, str]:
        """Return the text of both scripts by name."""
        logs = self.folder.absolute()
        part = ["--part", f'"$SLURM_ARRAY_TASK_ID/{self.parts}"']
        words = [shlex.quote(word) for word in (*self.command, *self.for_parts)]
        return {
            PARTS: self._build_script([*words, *part], f"--array=1-{self.parts}", f"--output={logs}/part-%a.log"),
            FINISH: self._build_script(
                [*map(shlex.quote, self.command), "--finish"],
                f"--output={logs}/finish.log",
                "--kill-on-invalid-dep=yes",
            ),
        }

    def _build_script(self, words: Sequence[str], *own: str) -> str:
        options = (f"--job-name={self.name}", "--requeue", "--open-mode=append", *own, *self.options)
        head = "".join(f"#SBATCH {shlex.quote(option)}\n" for option in options)
        workers = '"${SLURM_CPUS_ON_NODE:-1}"' if self.workers is None else str(self.workers)
        run = " ".join([shlex.quote(sys.executable), "-m maskstream", *words, "--workers", workers])
        return f"#!/bin/sh\n{head}cd {shlex.quote(str(Path.cwd()))} || exit 1\nexec {run}\n"

    def write(self) -> list[Path]:
        """Write the scripts and return their paths."""
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for name, text in self.scripts().items():
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o755)
            paths.append(path)
        return paths

    def by_hand(self) -> str:
        """Return the shell commands that submit the scripts."""
        parts, finish = (shlex.quote(str(self.folder / name)) for name in (PARTS, FINISH))
        return f"sbatch --dependency=afterok:$(sbatch --parsable {parts}) {finish}"

    def submit(self) -> tuple[str, str] | None:
        """Submit the scripts.

        Returns:
            The ids of both jobs, or None if this machine has no `sbatch`.

        Raises:
            ValueError: Slurm refuses a script; the message quotes Slurm.
        """
        sbatch = shutil.which("sbatch")
        if sbatch is None:
            return None
        parts = _submit_script([sbatch, "--parsable", str(self.folder / PARTS)])
        after = f"--dependency=afterok:{parts}"
        return parts, _submit_script([sbatch, "--parsable", after, str(self.folder / FINISH)])


def _submit_script(command: list[str]) -> str:
    """Run an `sbatch` command and return the id of the submitted job."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(
            f"Slurm refused {command[-1]}: {' '.join(done.stderr.split())}; change --sbatch, or edit the script by hand"
        )
    return done.stdout.strip().partition(";")[0]  # JOB, or JOB;CLUSTER
