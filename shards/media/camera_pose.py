"""Camera poses (position and rotation), and their changes of coordinates and mirror images.

A pose is seven numbers: x, y, z in metres, then the unit quaternion w, x, y, z that turns directions of the camera into
directions of the world. The world is right-handed with z upwards. The camera looks along its z axis; its x axis is to
the right and its y axis downwards, as in OpenCV. A waypoint is three numbers: metres to the right, metres forward, and
the turn to the right in radians in (-pi, pi], all along the ground, as seen from the camera.
"""

import numpy as np

from maskstream.shards.arrays import Float64s

POSE, WAYPOINT = 7, 3
"""Numbers of a pose and of a waypoint."""
_AHEAD = np.array([0.5, -0.5, 0.5, -0.5])
"""The rotation of a level camera that looks along the x axis of the world."""


def build_level_pose(place: Float64s, heading: float) -> Float64s:
    """Return the pose of a level camera at `place` (3,); heading: radians from the world's x axis towards its y
    axis.
    """
    turned = np.array([np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)])
    return np.concatenate([place, product(turned, _AHEAD)])


def product(a: Float64s, b: Float64s) -> Float64s:
    """Return the quaternion of rotation b followed by rotation a; both (..., 4)."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def turned(rotation: Float64s, directions: Float64s) -> Float64s:
    """Rotate directions (..., 3) by unit quaternions (..., 4)."""
    axis = np.cross(rotation[..., 1:], directions)
    return directions + 2 * (rotation[..., :1] * axis + np.cross(rotation[..., 1:], axis))


def inverse(rotation: Float64s) -> Float64s:
    """Return the unit quaternions (..., 4) of the inverse rotations."""
    return rotation * [1, -1, -1, -1]


def seen_from(poses: Float64s, camera: Float64s) -> Float64s:
    """Express poses (n, 7) in the axes of the camera at the pose `camera` (7,).

    Of the two quaternions of a rotation, the one with w >= 0 is returned, so similar poses have similar numbers.
    """
    back = np.broadcast_to(inverse(camera[3:]), (len(poses), 4))
    rotation = product(back, poses[:, 3:])
    rotation = np.where(rotation[:, :1] < 0, -rotation, rotation)
    return np.concatenate([turned(back, poses[:, :3] - camera[:3]), rotation], axis=1)


def mirrored(poses: Float64s) -> Float64s:
    """Return poses (n, 7) in the axes of a camera for an image that is mirrored left to right."""
    return poses * [-1, 1, 1, 1, 1, -1, -1]


def heading(pose: Float64s) -> float:
    """Return where a camera looks along the ground: radians from the world's x axis towards its y axis."""
    x, y, _ = turned(pose[3:], np.array([0.0, 0.0, 1.0])).tolist()
    return float(np.arctan2(y, x))


def waypoint(pose: Float64s, camera: Float64s) -> Float64s:
    """Convert a pose (7,) to a waypoint (3,) relative to the camera at the pose `camera` (7,)."""
    way, at = pose[:2] - camera[:2], heading(camera)
    cos, sin = np.cos(at), np.sin(at)
    right, forward = way[0] * sin - way[1] * cos, way[0] * cos + way[1] * sin
    return np.array([right, forward, wrapped(at - heading(pose))])


def wrapped(angle: float) -> float:
    """Return an angle in radians in (-pi, pi]."""
    return float(-((-angle + np.pi) % (2 * np.pi) - np.pi))
