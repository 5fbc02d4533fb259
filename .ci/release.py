"""Builds a release of the last commit and checks it: `make release`, or `make release DRAFT=1` between releases.

In dist/ lie then the wheel, the sdist, and NOTES.md, the version's section of CHANGELOG.md. Both are built twice, in
two folders, and must be the same bytes; twine must take them; and the wheel must run alone in an empty environment.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **options: object) -> str:
    """What a command prints; it ends this program if it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def version_of(folder: Path) -> str:
    """The version, which pyproject.toml, the package and CITATION.cff must name alike."""
    patterns = {
        "pyproject.toml": r'^version = "(.+)"$',
        "src/maskstream/__init__.py": r'^__version__ = "(.+)"$',
        "CITATION.cff": r"^version: (.+)$",
    }
    found = {}
    for name, pattern in patterns.items():
        match = re.search(pattern, (folder / name).read_text(encoding="utf-8"), re.MULTILINE)
        found[name] = match[1] if match else "none"
    if len(set(found.values())) > 1:
        sys.exit(f"the files name different versions: {found}; write the same into all")
    return found["pyproject.toml"]


def notes_of(changelog: str, version: str, *, draft: bool) -> str:
    """The section of a version; of a draft, what is not released yet."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    bodies = {section.split("\n", 1)[0]: section.partition("\n")[2].strip() for section in sections}
    waiting = bodies.get("Unreleased", "")
    if draft:
        return waiting
    if re.search(r"^- ", waiting, re.MULTILINE):
        sys.exit("CHANGELOG.md has changes under Unreleased; give them a version and a date, or build with DRAFT=1")
    for title, body in bodies.items():
        if re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", title):
            return body
    sys.exit(f"CHANGELOG.md has no section '## {version} - YYYY-MM-DD'; add it, or build with DRAFT=1")


def built(commit: str, folder: Path) -> dict[str, bytes]:
    """The sdist of a commit, and the wheel that is made of the sdist, by name."""
    source, out = folder / "source", folder / "dist"
    source.mkdir(parents=True)
    archive = folder / "source.tar"
    run("git", "-C", ROOT, "archive", "--output", archive, commit)
    with tarfile.open(archive) as tar:
        tar.extractall(source, filter="data")
    env = os.environ | {"SOURCE_DATE_EPOCH": run("git", "-C", ROOT, "log", "-1", "--format=%ct", commit).strip()}
    run(sys.executable, "-m", "build", source, "--outdir", out, env=env)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def main() -> None:
    """Builds, checks and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--tag", default="", help="the tag that is released; it must be v and the version")
    parser.add_argument("--draft", action="store_true", help="take the notes from Unreleased")
    parser.add_argument("--without-install", action="store_true", help="leave out the empty environment")
    chosen = parser.parse_args()
    if run("git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"):
        sys.exit("there are changes that are not committed; a release is made of a commit")
    commit = run("git", "-C", ROOT, "rev-parse", "HEAD").strip()
    version = version_of(ROOT)
    if chosen.tag not in ("", f"v{version}"):
        sys.exit(f"the tag {chosen.tag} is not v{version}, the version of this commit")
    notes = notes_of((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version, draft=chosen.draft)
    with tempfile.TemporaryDirectory() as temporary:
        one, two = (built(commit, Path(temporary, name)) for name in ("a", "deeper/b"))
        if one != two:
            differ = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
            sys.exit(f"two builds of {commit} differ: {differ}")
        shutil.rmtree(chosen.out, ignore_errors=True)
        chosen.out.mkdir(parents=True)
        for name, data in one.items():
            (chosen.out / name).write_bytes(data)
        (chosen.out / "NOTES.md").write_text(f"{notes}\n", encoding="utf-8")
        packages = [chosen.out / name for name in one]
        run(sys.executable, "-m", "twine", "check", "--strict", *packages)
        if not chosen.without_install:
            venv.create(Path(temporary, "env"), with_pip=True)
            python = Path(temporary, "env/bin/python")
            wheel = next(path for path in packages if path.suffix == ".whl")
            run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
            said = run(python.with_name("maskstream"), "--version", cwd=temporary).strip()
            if said != f"maskstream {version}":
                sys.exit(f"the wheel says {said!r} in an empty environment, expected maskstream {version}")
    for path in packages:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size:,} bytes")
    print(f"{chosen.out}: {version} of {commit[:12]}, the same bytes in two builds")


if __name__ == "__main__":
    main()
