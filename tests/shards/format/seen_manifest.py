"""What the processes of test_index_cache.py do; a module of its own, so that they can import it."""

from pathlib import Path


def mapped():
    """The inodes of the index files that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[4] for line in lines if "memfd:maskstream" in line or ".index" in line}


def seen(manifest):
    """What a manifest says, and the file that its arrays lie in."""
    member = manifest.component("json")
    return {
        "keys": manifest.keys(range(len(manifest))),
        "spans": [member.offset.tolist(), member.size.tolist(), member.digest.tolist()],
        "labels": manifest.label.tolist(),
        "shards": [str(manifest.shard_path(i)) for i in range(len(manifest))],
        "fingerprint": manifest.fingerprint,
        "writeable": [a.flags.writeable for a in (member.offset, manifest.label)],
        "files": sorted(mapped()),
    }


def told(manifest, answer):
    answer.send(seen(manifest))
