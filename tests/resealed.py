"""Changes a finished split and makes its checksums right again, as a forger would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.dataset import DATASET_JSON, MANIFEST, REJECTS
from maskstream.shards.sealed import SEAL, sealed


def reseal(folder: Path, *without: str, **changes: Any) -> None:
    """Change fields of dataset.json and leave out those named `without`; the checksums of the manifest, the rejects and
    dataset.json then fit what is in the folder.
    """
    path = folder / DATASET_JSON
    fields = json.loads(path.read_bytes())
    files = {name: facts_of((folder / name).read_bytes()) for name in (MANIFEST, REJECTS) if (folder / name).is_file()}
    fields |= {"files": fields["files"] | files} | changes
    path.write_bytes(sealed({name: value for name, value in fields.items() if name not in (SEAL, *without)}))
