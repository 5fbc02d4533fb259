"""The README is short, and its Python runs as it stands, on a small split at the place that it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SAMPLE = "data/shards/sample/train"


def blocks(text):
    """The Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_readme_is_short_and_shows_a_picture_and_python_at_once():
    lines = README.splitlines()
    assert len(lines) <= 90
    assert lines.index("<picture>") < lines.index("```python") < 25


@pytest.mark.parametrize("page", ["README.md", "docs/loader.md", "docs/video.md", "docs/flow.md"])
def test_the_loader_of_a_page_runs(page, split, tmp_path, monkeypatch, capsys):
    """All blocks of the page in turn, but those that need transformers or a package of one's own."""
    monkeypatch.chdir(tmp_path)
    Path(SAMPLE).parent.mkdir(parents=True)
    Path(SAMPLE).symlink_to(split)
    names = {}
    for block in blocks((ROOT / page).read_text()):
        if "transformers" not in block and "ownparts" not in block:
            exec(block, names)
    batch = names["batch"]
    print(tuple(batch.video.shape), tuple(batch.mask.visible.shape))
    assert (
        capsys.readouterr().out.strip()
        == {
            "README.md": "(8, 16, 224, 224, 3) (8, 152)",
            "docs/loader.md": "(4, 16, 112, 112, 3) (4, 40)",
            "docs/video.md": "(2, 16, 224, 224, 3) (2, 160)",
            "docs/flow.md": "(2, 16, 224, 224, 3) (2, 152)",
        }[page]
    )
