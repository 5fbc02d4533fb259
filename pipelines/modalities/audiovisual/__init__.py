"""Clips of a video with the sound of their time."""
