"""Pictures of meshes: what is drawn where."""

import numpy as np

from maskstream.pages.figures.mesh import MARGIN_PX, draw_mesh
from maskstream.pages.figures.pictures import coloured

SQUARE = np.array([[0, 0], [2, 0], [2, 1], [0, 1]], np.float32)
CELLS = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_the_picture_has_the_shape_of_the_mesh_and_y_goes_up():
    colours = np.array([RED, RED, BLUE, BLUE], np.uint8)
    picture = draw_mesh(SQUARE, CELLS, colours, side_px=208)
    assert picture.shape == (100 + 2 * MARGIN_PX, 208, 3)
    bottom, top = picture[90, 150], picture[20, 60]
    assert bottom[0] > bottom[2]
    assert top[2] > top[0]
    assert (picture[0] == 255).all()


def test_cells_with_hidden_nodes_are_grey():
    colours = np.full((4, 3), RED, np.uint8)
    hidden = np.array([False, True, False, False])
    picture = draw_mesh(SQUARE, CELLS, colours, hidden=hidden, side_px=208)
    below, above = picture[90, 150].astype(int), picture[20, 60]
    assert np.ptp(below) < 10
    np.testing.assert_array_equal(above, RED)


def test_in_space_what_is_nearer_covers_what_is_behind():
    near, far = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    away = np.array([0.43, 0.75, -0.5], np.float32)
    places = np.concatenate([near, far + 5 * away])
    cells = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    colours = np.array([RED] * 3 + [BLUE] * 3, np.uint8)
    for order in (cells, cells[::-1]):
        picture = draw_mesh(places, np.ascontiguousarray(order), colours, side_px=100)
        reds, blues = ((picture == colour).all(-1).sum() for colour in (RED, BLUE))
        assert reds > 1.5 * blues
    corners = np.array([[0, 1, 2, 3]], np.int32)
    assert draw_mesh(places, corners, colours).shape[2] == 3


def test_colours_run_from_low_to_high():
    colours = coloured(np.array([[-9, 0, 1, 9]], np.float32), 0, 1)[0]
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[2], colours[3])
    assert colours[0, 2] > colours[0, 1]
    assert colours[2, 0] > colours[2, 2]
