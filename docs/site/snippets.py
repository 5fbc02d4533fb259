"""Scripts in pages: `<!-- examples/FILE -->` before a block of code says which file the block is.

python docs/site/snippets.py      writes all such blocks anew
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^<!-- (examples/\S+) -->\n```(\w*)\n.*?^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """The pages written by hand."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_scripts(text: str) -> str:
    """`text` with the scripts as they are now."""

    def block(found: re.Match[str]) -> str:
        code = (ROOT / found[1]).read_text(encoding="utf-8").rstrip("\n")
        return f"<!-- {found[1]} -->\n```{found[2]}\n{code}\n```"

    return _BLOCK.sub(block, text)


def main() -> None:
    """Writes all pages."""
    for page in pages():
        page.write_text(with_scripts(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
