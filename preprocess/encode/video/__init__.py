"""Videos to the member `mp4`."""
