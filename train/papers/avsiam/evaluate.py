"""Evaluates AVSiam: hidden tokens of video and sound, and which sound belongs to a clip."""

from maskstream.train.evaluate.pairs import evaluate

from .model import SiameseConfig

EVALUATIONS = {SiameseConfig: evaluate}
