"""What a type checker knows of the public functions: checked by `make lint`, never run."""

import pathlib
from typing import assert_type

import numpy as np

import gen4d


def use(points: np.ndarray, mesh: tuple[np.ndarray, np.ndarray]) -> None:
    dataset = gen4d.open_dataset(pathlib.Path("data"))
    assert_type(dataset, gen4d.Dataset)
    assert_type(dataset[0], gen4d.Sequence)
    assert_type(dataset["scene0000_00/003"], gen4d.Sequence)
    assert_type(dataset[0:2], list[gen4d.Sequence])
    for sequence in dataset:
        for frame in sequence:
            assert_type(frame, gen4d.Frame)
            assert_type(frame.point_index, np.ndarray)
        assert_type(sequence.correspondences(0, 3), tuple[np.ndarray, np.ndarray])
        assert_type(sequence.arrays(), dict[str, np.ndarray])
    recording = gen4d.generate(points, {"chair": [mesh]}, seed=3)
    assert_type(recording, gen4d.Recording)
    assert_type(gen4d.write_dataset([recording], "out"), gen4d.Dataset)
    assert_type(gen4d.build_dataset("scans", "shapes", progress=print).manifest, dict | None)
