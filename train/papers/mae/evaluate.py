"""Evaluates the reconstruction of masked pictures: of MAE, and of DMAE, whose config is one of MAE's."""

from maskstream.train.evaluate.pictures import evaluate
from maskstream.train.nn.masked_autoencoder import ImageAutoencoderConfig

EVALUATIONS = {ImageAutoencoderConfig: evaluate}
