"""The loader of the README runs as it stands there, on a small split."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def loader_code(split):
    """The README's first loader, which prints the shape of each batch of two clips of `split`."""
    found = re.search(r"## The loader in your project.*?```python\n(.*?)```", README, re.DOTALL)
    assert found
    code = found[1].replace("data/shards/k400/train", str(split)).replace("batch_size=32", "batch_size=2")
    return code.replace("for batch in loader:", "for batch in loader:\n    print(tuple(batch.video.shape))")


def test_the_loader_of_the_readme_reads_a_split(split, capsys):
    exec(loader_code(split), {})
    assert capsys.readouterr().out.splitlines()[0] == "(2, 16, 224, 224, 3)"
