"""The model and the batches of self-distillation, from its settings."""

import torch

from train.inputs.order import Share
from train.methods.config import PretrainConfig
from train.methods.contrast4d.batch import SequenceStream
from train.methods.contrast4d.make import sequence_stream
from train.methods.distill.config import METHODS
from train.methods.distill.model import Distillation
from train.nets.weights import stored_backbone


def make_model(config: PretrainConfig) -> Distillation:
    """The nets on the CPU, with weights drawn from the seed."""
    generator = torch.Generator().manual_seed(config.run.seed)
    return Distillation(config.distill, config.contrast, config.run.steps, generator)


def make_stream(config: PretrainConfig, dataset, share: Share) -> SequenceStream:
    """Batches of a data set's sequences, as `gen4d.shards.open_dataset` gives it."""
    recipe = config.contrast.recipe(METHODS[config.method])._replace(whole=True)
    return sequence_stream(config, dataset, recipe, share)


def describe_backbone(config: PretrainConfig) -> dict:
    """Where in the model the net is that others go on with: the student's, which has learned most where runs are short
    and the teacher has little time to follow (A: Sonata's is the teacher's)."""
    net, voxel_m = config.contrast.net_3d, config.contrast.voxel_m
    return stored_backbone(net, voxel_m, "student.encoder.backbone.", config.method)
