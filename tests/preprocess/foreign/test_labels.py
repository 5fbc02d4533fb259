"""Labels that stand beside the members of tars which others wrote."""

import pytest

from maskstream.preprocess.foreign.labels import read_label
from maskstream.preprocess.source import RejectError


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ({"json": b'{"label": 3}', "cls": b"4"}, 3),
        ({"json": b'{"caption": "a cat"}', "cls": b" 4\n"}, 4),
        ({"json": b"[1]"}, None),
        ({"cls": "caf\u00e9".encode()}, "caf\u00e9"),
        ({"json": b'{"label": -1}'}, RejectError),
        ({"json": b'{"label": "\\ud800"}'}, RejectError),
        ({"json": b"[" * 100_000}, RejectError),
        ({"cls": b"\xff"}, RejectError),
        ({"cls": b""}, RejectError),
        ({"cls": b"9" * 19}, RejectError),
    ],
)
def test_labels_of_every_form(members, label):
    if label is RejectError:
        with pytest.raises(RejectError, match="label"):
            read_label(members)
    else:
        assert read_label(members) == label
