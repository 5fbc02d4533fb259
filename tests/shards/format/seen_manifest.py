"""What the processes of test_shared_arrays.py do; a module of its own, so that they can import it."""

from pathlib import Path


def seen(manifest):
    """What a manifest says, and whether its arrays lie in shared memory."""
    member = manifest.component("json")
    return {
        "keys": manifest.keys(range(len(manifest))),
        "spans": [member.offset.tolist(), member.size.tolist(), member.digest.tolist()],
        "labels": manifest.label.tolist(),
        "shards": [str(manifest.shard_path(i)) for i in range(len(manifest))],
        "fingerprint": manifest.fingerprint,
        "writeable": [a.flags.writeable for a in (member.offset, manifest.label)],
        "shared": "memfd:maskstream" in Path("/proc/self/maps").read_text(),
    }


def told(manifest, answer):
    answer.send(seen(manifest))
