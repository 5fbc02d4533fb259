"""torchdata's StatefulDataLoader saves and loads the position of a loader, exactly."""

from itertools import islice

import pytest

from maskstream.pipelines import VideoClip, masks, video_loader

StatefulDataLoader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata 0.11 calls it


def opened(split, repeat):
    mask = masks.Tube(ratio=0.75)
    clip = VideoClip(frames=2, stride=4, size=32)
    loader = video_loader(split, clip=clip, mask=mask, patch=8, batch_size=2, seed=3, threads=1, device="cpu")
    return StatefulDataLoader(loader.as_dataset(repeat=repeat), batch_size=None)


@pytest.mark.parametrize("stop", [0, 1, 4])
@pytest.mark.parametrize("repeat", [False, True])
def test_a_saved_position_goes_on_with_the_next_batch(split, repeat, stop):
    wanted = [batch.key for batch in islice(opened(split, repeat), 9)]
    first = opened(split, repeat)
    got = [batch.key for batch in islice(first, stop)]
    second = opened(split, repeat)
    second.load_state_dict(first.state_dict())
    got += [batch.key for batch in islice(second, len(wanted) - stop)]
    assert got == wanted


def test_epochs_follow_each_other_after_a_resume(split):
    whole = opened(split, repeat=False)
    wanted = [[batch.key for batch in whole] for _ in range(2)]
    assert wanted[0] != wanted[1]
    first = opened(split, repeat=False)
    got = [batch.key for batch in islice(first, 2)]
    second = opened(split, repeat=False)
    second.load_state_dict(first.state_dict())
    assert [*got, *(batch.key for batch in second)] == wanted[0]
    assert [batch.key for batch in second] == wanted[1]
