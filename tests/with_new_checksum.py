"""Changes a finished split and makes its checksums right again, as a forger would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskstream.shards.checksummed import CHECKSUM, add_checksum
from maskstream.shards.format.checked_file import facts_of
from maskstream.shards.format.dataset import DATASET_JSON


def renew_checksum(folder: Path, *without: str, **changes: Any) -> None:
    """Change fields of dataset.json and leave out those named `without`; the checksums of the manifest, the rejects and
    dataset.json then fit what is in the folder. So does the description of the version.
    """
    path = folder / DATASET_JSON
    fields = json.loads(path.read_bytes())
    there = [name for name in fields["files"] if (folder / name).is_file()]
    files = {name: facts_of((folder / name).read_bytes()) for name in there}
    fields |= {"files": fields["files"] | files} | changes
    data = add_checksum({name: value for name, value in fields.items() if name not in (CHECKSUM, *without)})
    path.write_bytes(data)
    for version in (folder / "versions").glob("*.json"):
        version.write_bytes(data)
