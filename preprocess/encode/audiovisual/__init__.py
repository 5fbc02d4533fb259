"""Videos with sound to the members `mp4` and `flac`."""
