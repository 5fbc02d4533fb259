"""The same frames give the same bytes, also where the processor has instructions with which x264 does not."""

from dataclasses import replace

from maskstream.preprocess.encode.video.video import PROFILES, encode_video


def test_an_encode_repeats_bit_by_bit(make_video):
    path = make_video("wide.mp4", 40, width=340, height=256)
    profile = replace(PROFILES["train"], preset="veryfast")
    assert len({encode_video(path, profile).data for _ in range(6)}) == 1
