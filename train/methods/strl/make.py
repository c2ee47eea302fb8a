"""The model and the batches of STRL, from its settings."""

import numpy as np
import torch

from train.inputs.order import Order, Share
from train.methods.config import PretrainConfig
from train.methods.strl.batch import PairStream
from train.methods.strl.model import Byol
from train.nets.weights import stored_backbone


def make_model(config: PretrainConfig) -> Byol:
    """The nets on the CPU, with weights drawn from the seed."""
    return Byol(config.strl, config.run.steps, torch.Generator().manual_seed(config.run.seed))


def make_stream(config: PretrainConfig, dataset, share: Share) -> PairStream:
    """Batches of a data set's sequences, as `gen4d.shards.open_dataset` gives it."""
    alone = not (config.run.shared_norms and share.world > 1)  # then norms see the clouds of one process alone
    share = share._replace(least=2 if alone else 1)
    scan_of = np.array([dataset.scan_of(i) for i in range(len(dataset))])
    order = Order(scan_of, config.run.seed, config.block_scans)
    return PairStream(dataset, order, config.strl, share, config.run.seed, config.run.workers)


def describe_backbone(config: PretrainConfig) -> dict:
    """Where in the model the net is that others go on with, and what it takes."""
    strl = config.strl
    about = stored_backbone(strl.net, strl.voxel, "online.encoder.backbone.", config.method)
    return about | ({"k": strl.k, "points": strl.points} if strl.on_points else {})
