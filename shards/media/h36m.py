"""The skeleton of all poses: the 17 joints of Human3.6M (Ionescu et al., 2014), in their usual order."""

JOINTS = (
    "pelvis", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "spine", "thorax",
    "neck", "head", "left shoulder", "left elbow", "left wrist", "right shoulder", "right elbow", "right wrist",
)  # fmt: skip
PARENTS = (0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""The parent of each joint, which has a lower number; the pelvis is the root."""
MIRRORED = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
"""The joint that each joint becomes when left and right are swapped."""
NECK = 9
"""The joint that 16-joint skeletons leave out."""


def bones(joints: int) -> list[tuple[int, int]]:
    """The pairs of joints that are linked, child first, in a skeleton of 17 joints or of 16."""
    if joints == len(JOINTS):
        return list(enumerate(PARENTS))[1:]
    kept = [joint for joint in range(len(JOINTS)) if joint != NECK]
    above = {joint: PARENTS[NECK] if PARENTS[joint] == NECK else PARENTS[joint] for joint in kept}
    return [(kept.index(joint), kept.index(above[joint])) for joint in kept[1:]]
