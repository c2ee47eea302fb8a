"""The model and the batches of this folder's methods, from their settings."""

import numpy as np
import torch

from train.inputs.order import Order, Share
from train.methods.config import PretrainConfig
from train.methods.contrast4d.batch import Recipe, SequenceStream
from train.methods.contrast4d.config import METHODS
from train.methods.contrast4d.model import Contrast
from train.nets.weights import stored_backbone


def make_model(config: PretrainConfig) -> Contrast:
    """The nets on the CPU, with weights drawn from the seed."""
    return Contrast(config.method, config.contrast, torch.Generator().manual_seed(config.run.seed))


def make_stream(config: PretrainConfig, dataset, share: Share) -> SequenceStream:
    """Batches of a data set's sequences, as `gen4d.shards.open_dataset` gives it."""
    return sequence_stream(config, dataset, config.contrast.recipe(METHODS[config.method]), share)


def sequence_stream(config: PretrainConfig, dataset, recipe: Recipe, share: Share) -> SequenceStream:
    """The same by any recipe."""
    scan_of = np.array([dataset.scan_of(i) for i in range(len(dataset))])
    order = Order(scan_of, config.run.seed, config.block_scans)
    return SequenceStream(dataset, order, recipe, share, config.run.seed, config.run.workers)


def describe_backbone(config: PretrainConfig) -> dict:
    """Where in the model the net is that others go on with."""
    return stored_backbone(config.contrast.net_3d, config.contrast.voxel_m, "encoder3d.backbone.", config.method)
