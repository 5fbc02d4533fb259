"""Labels of pose sequences, derived from file names."""

import re

ACTIONS = {
    "hurt": ("attacked", "caught", "dead", "death", "die", "dying", "followed", "hurt", "stagger", "tackled"),
    "attack": (
        *("attack", "capture", "hit", "kick", "kill", "parry", "punch", "slap", "slash", "smash", "spinkick", "stab"),
        *("strike", "sweep", "tackle", "tackling", "throw", "upunch", "whack"),
    ),
    "jump": ("backflip", "cartwheel", "flip", "handspring", "jump", "land", "landing", "roll", "wall"),
    "dance": ("dance", "spin"),
    "move": (
        "climb",
        "crawl",
        "gallop",
        "jog",
        "move",
        "pace",
        "run",
        "running",
        "sneak",
        "step",
        "stop",
        "turn",
        "walk",
    ),
    "work": ("build", "carry", "farming", "gather", "healing"),
    "idle": ("crouch", "hang", "idle", "sit", "sleep"),
}
"""The words of a name that decide its label; the first label with one of them does."""
LABELS = tuple(sorted(ACTIONS))
_WORDS = re.compile(r"[A-Z]?[a-z]+")


def parse_action_label(name: str) -> int:
    """Return the label of a name such as SpinKickCaught or humanoid3d_spinkick, a number in LABELS; -1 if it names
    none.
    """
    words = {word.lower() for word in _WORDS.findall(name)}
    return next((LABELS.index(label) for label, some in ACTIONS.items() if words & set(some)), -1)
