"""Sequences in files: the format, its readers and writers, and whether a data set is intact."""

from gen4d.sequence import Actor, Cloud, FloorPlan, Frame, Mover, Recording, Sequence, frame_pairs
from gen4d.shards.dataset import Dataset, open_dataset
from gen4d.shards.format import FormatError

__all__ = [
    "Actor",
    "Cloud",
    "Dataset",
    "FloorPlan",
    "FormatError",
    "Frame",
    "Mover",
    "Recording",
    "Sequence",
    "frame_pairs",
    "open_dataset",
]
