"""The options of a job: keyword arguments are its fields, and what excludes each other is refused before any work."""

from dataclasses import fields
from inspect import signature

import pytest

from maskstream.preprocess import index_tars, make_shards
from maskstream.preprocess.curate import CurateOptions, curate
from maskstream.preprocess.job.options import IndexOptions, JobOptions
from maskstream.preprocess.versions import add_sources


@pytest.mark.parametrize(
    ("function", "options"),
    [(make_shards, JobOptions), (add_sources, JobOptions), (index_tars, IndexOptions), (curate, CurateOptions)],
)
def test_the_fields_of_the_options_are_keyword_arguments_with_their_defaults(function, options):
    taken = signature(function).parameters
    assert all(taken[field.name].default == field.default for field in fields(options))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_rejects": 1.5}, "max_rejects must be a number from 0 to 1, got 1.5"),
        ({"overwrite": True, "retry_rejects": True}, "cannot be combined"),
        ({"finish": True, "part": (1, 2)}, "finish writes no shards"),
        ({"finish": True, "repair": True}, "finish writes no shards"),
        ({"repair": True, "retry_rejects": True}, "repair restores existing shards"),
        ({"part": (1, 2), "overwrite": True}, "a part cannot overwrite"),
        ({"part": (3, 2)}, "the part 3/2 does not exist"),
        ({"samples_per_shard": 0}, "samples_per_shard must be an integer of at least 1 or None, got 0"),
    ],
)
def test_options_that_exclude_each_other_are_refused(given, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        make_shards("image-folder", tmp_path, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_options_that_no_job_has_are_refused(tmp_path):
    with pytest.raises(TypeError, match="worker"):
        make_shards("image-folder", tmp_path, tmp_path / "out", worker=2)
    with pytest.raises(ValueError, match="match selects a column in labels"):
        index_tars([tmp_path], match="key")
    with pytest.raises(ValueError, match="--append is for finished splits"):
        add_sources("image-folder", tmp_path, tmp_path / "out", JobOptions(overwrite=True))
