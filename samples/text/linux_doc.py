"""The documentation of the Linux kernel 6.12: its English pages as reStructuredText, 9 MB of text.

A document is a page, and a page is held out whole. Debian's linux-doc-6.12, GPL-2; the same pages as HTML, the copies
of their sources beside them, and translations are left out.
"""

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskstream.preprocess.datasets.dataset import Dataset
from maskstream.samples.debian import debian_folder

from .kept_lines import choose_split, kept_lines

PACKAGE, INSIDE = "linux-doc-6.12", "usr/share/doc/linux-doc-6.12/Documentation"
HELD_OUT = 0.05
_ENDINGS = (".rst.gz", ".rst")


def linux_doc(root: Path) -> Dataset:
    """The pages, fetched into `root`; DatasetError where that is not possible."""
    return kept_lines("linux-doc", root, lambda root: lines(debian_folder(PACKAGE, INSIDE, root)))


def lines(folder: Path) -> Iterator[Mapping[str, Any]]:
    """The pages in a folder, by their path; `section` is the first folder."""
    for path in sorted(path for path in folder.rglob("*.rst*") if path.is_file() and path.name.endswith(_ENDINGS)):
        page = path.relative_to(folder).as_posix().removesuffix(".gz").removesuffix(".rst")
        if page.startswith("translations/"):
            continue
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8", "replace").strip()
        if text:
            yield {"id": page, "text": text, "split": choose_split(page, HELD_OUT), "section": page.partition("/")[0]}
