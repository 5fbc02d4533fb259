"""The windows of the sample clips."""

from collections import Counter
from dataclasses import replace

from maskstream.samples.video.sample import CLIPS, windows


def test_sample_windows_share_no_frame_with_validation_and_no_clip_with_unseen_ones():
    counts = Counter()
    for clip in CLIPS:
        cut = windows(clip)
        assert all(
            stop - first == 64 and first >= 0 and stop <= clip.n_frames for w in cut.values() for first, stop in w
        )
        assert all(stop <= first for _, stop in cut.get("train", []) for first, _ in cut.get("val", []))
        assert "unseen" not in cut or list(cut) == ["unseen"]
        assert clip.only in (None, *cut)
        counts.update({split: len(w) for split, w in cut.items()})
    assert counts == {"train": 36, "val": 5, "unseen": 5}
    assert windows(replace(CLIPS[0], n_frames=40)) == {"train": []}
    assert "val" not in windows(replace(CLIPS[0], n_frames=127))
