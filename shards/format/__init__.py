"""The shard format: samples, tars, the manifest, and the checks of a finished split."""
