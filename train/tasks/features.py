"""Per-point features of a scan by a pre-trained 3D backbone, and their picture."""

import os
import pathlib

import numpy as np
import torch

from gen4d import sources
from gen4d.shards import open_dataset
from train.errors import Refused
from train.inputs.voxels import voxelise
from train.nets.heads import CHANNELS_IN
from train.nets.weights import Backbone, check_geometry
from train.run.world import to_device
from train.tasks.pictures import Panel, draw


class FeatureError(Refused):
    """A scan that is not there, or features that cannot be shown."""


def file_source(path: pathlib.Path) -> sources.ScanSource:
    """A points file as a scan that is named after it. Raises OSError."""
    return sources.ScanSource(path.stem, path.parent, {"points": path.name}, "scan-files", path.stat().st_size)


def read_scan(path: pathlib.Path, up: str, units: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Finite points (n, 3) of a file in metres, z up, their rows in the file (n,), and the file's number of rows.

    Raises SourceError.
    """
    scan = sources.load_scan(file_source(path), sources.Orientation(up, sources.parse_units(units)))
    return scan.point, scan.row, len(scan.row) + scan.dropped


def read_stored_scan(data: str | os.PathLike, name: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The cloud of a scan of a data set, by default of its first: points, rows, number of rows, as `read_scan`.

    Raises FormatError, and FeatureError for a name that is not there.
    """
    dataset = open_dataset(data)
    for number in range(len(dataset)):
        if name is None or dataset.scan_names[dataset.scan_of(number)] == name:
            first = dataset[number].actors[0]  # a scan, which stands still, or a frame as its sensor saw it
            pose = first.pose[0].astype(np.float64)
            point = (first.cloud.point @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32)
            return point, np.arange(len(point)), len(point)
    known = ", ".join(dataset.scan_names[:5])
    wanted = "" if name is None else f" of a scan {name!r}"
    raise FeatureError(f"{data}: no sequence{wanted}; there are {len(dataset.scan_names)} scans: {known}, ...")


def point_features(backbone: Backbone, point: np.ndarray, device: torch.device) -> np.ndarray:
    """Features of points (n, 3) float32 metres, z up: those of the voxel of each, (n, channels) float32.

    Raises CheckpointError for a net that takes more than geometry.
    """
    check_geometry(backbone)
    voxels, row = voxelise(point, backbone.voxel_m)
    voxels = to_device(voxels, device)
    net = backbone.net.to(device)
    with torch.no_grad():
        features = net(voxels, torch.ones(len(voxels.coordinate), CHANNELS_IN, device=device), 1)
    return features.float().cpu().numpy()[row]


def principal_colours(features: np.ndarray) -> np.ndarray:
    """Features (n, c) to colours (n, 3) in 0..1: their first three principal components, 1st to 99th percentile."""
    centred = (features - features.mean(axis=0)).astype(np.float64)
    _, vector = np.linalg.eigh(centred.T @ centred)
    vector = vector[:, ::-1][:, :3]
    vector = vector * np.sign(vector[np.abs(vector).argmax(axis=0), np.arange(vector.shape[1])])  # eigh's signs vary
    score = centred @ vector
    low, high = np.percentile(score, [1, 99], axis=0)
    colours = np.zeros((len(features), 3))
    colours[:, : score.shape[1]] = np.clip((score - low) / np.maximum(high - low, 1e-12), 0, 1)
    return colours


def write_features(
    out: pathlib.Path, point: np.ndarray, features: np.ndarray, row: np.ndarray, rows: int
) -> tuple[int, int]:
    """A file of features, one row a row of the points file (NaN where it holds no point), and a picture beside it.

    point (n, 3), features (n, c) and row (n,) are of the points that are there. Returns the array's shape.
    """
    full = np.full((rows, features.shape[1]), np.nan, np.float32)
    full[row] = features
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "wb") as file:
        np.save(file, full)
    draw(point, [Panel(principal_colours(features))], out.with_suffix(".png"))
    return full.shape
