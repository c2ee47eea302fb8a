"""Per-point features of a scan by a pre-trained 3D backbone, their picture, and the backbone's weights for others."""

import json
import os
import pathlib
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch

from gen4d import files, sources
from gen4d.shards import open_dataset
from train import checkpoint
from train.batch import Grid, Rows, Voxels, new_tensor, to_device
from train.checkpoint import CheckpointError
from train.nets.heads import CHANNELS_IN
from train.nets.unet import NETS, NetShape, UNet

PREFIX = "encoder3d.backbone."
LAYOUT = (
    "Sparse convolution weights are (out, kx, ky, kz, in), as spconv 2 keeps them, on coordinates [batch, x, y, z]. "
    "spconv 1: weight.permute(1, 2, 3, 4, 0). torch.nn.Conv3d: weight.permute(0, 4, 1, 2, 3). "
    "down.N: kernel 2, stride 2, channels kept; up.N: its inverse. shortcut.0: a linear layer (out, in). "
    "Input: three channels of ones a voxel. Norms are torch.nn.BatchNorm1d."
)


class FeatureError(ValueError):
    """A scan that is not there."""


class Backbone(NamedTuple):
    """A pre-trained 3D U-Net in evaluation mode, and the voxels that it was trained on."""

    net: UNet
    voxel_m: float


def load_backbone(path: pathlib.Path) -> Backbone:
    """From a run folder (its newest checkpoint), a checkpoint folder, or a file of `export_weights`.

    Raises CheckpointError.
    """
    if path.is_file():
        weights, about = _read_export(path)
    else:
        weights, about = backbone_weights(_find_checkpoint(path))
    shape = {name: tuple(value) if isinstance(value, list) else value for name, value in about["shape"].items()}
    net = UNet(NetShape(**shape), 3, torch.Generator().manual_seed(0), CHANNELS_IN)
    checkpoint.load_weights(weights, net, str(path))
    return Backbone(net.eval(), about["voxel_m"])


def _find_checkpoint(path: pathlib.Path) -> checkpoint.Checkpoint:
    if path.name.startswith("checkpoint-"):
        return checkpoint.read(path)
    found, _ = checkpoint.newest(path)
    if not found:
        raise CheckpointError(f"{path}: no checkpoint there: give a run folder, a checkpoint or exported weights")
    return found


def backbone_weights(found: checkpoint.Checkpoint) -> tuple[dict[str, torch.Tensor], dict]:
    """The 3D backbone's tensors of a pre-training checkpoint, and what is needed to use them."""
    weights = {name.removeprefix(PREFIX): value for name, value in found.model.items() if name.startswith(PREFIX)}
    net = found.config.get("net_3d")
    if not weights or net not in NETS:
        raise CheckpointError(f"{found.path}: holds no 3D backbone of this version: give a pre-training run")
    about = {"net": net, "shape": asdict(NETS[net]), "voxel_m": found.config["voxel_m"]}
    return weights, about | {"method": found.config["method"], "step": found.step, "layout": LAYOUT}


def export_weights(run: pathlib.Path, out: pathlib.Path) -> dict:
    """Write the 3D backbone of a run or checkpoint as one safetensors file; returns what its header says."""
    weights, about = backbone_weights(_find_checkpoint(run))
    files.make_folder(out.parent)
    files.write(out, safetensors.torch.save(weights, {"format": "pt", "gen4d": json.dumps(about)}))
    return about


def _read_export(path: pathlib.Path) -> tuple[dict[str, torch.Tensor], dict]:
    try:
        with safetensors.safe_open(path, "pt") as opened:
            about = json.loads((opened.metadata() or {})["gen4d"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, about
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: not weights that export-weights wrote ({error}): give a run folder") from None


def read_scan(path: pathlib.Path, up: str, units: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Finite points (n, 3) of a file in metres, z up, their rows in the file (n,), and the file's number of rows.

    Raises SourceError.
    """
    size = path.stat().st_size
    source = sources.ScanSource(path.stem, path.parent, {"points": path.name}, "scan-files", size)
    scan = sources.load_scan(source, sources.Orientation(up, sources.parse_units(units)))
    return scan.point, scan.row, len(scan.row) + scan.dropped


def read_stored_scan(data: str | os.PathLike, name: str | None) -> tuple[np.ndarray, np.ndarray, int]:
    """The cloud of a scan of a data set, by default of its first: points, rows, number of rows, as `read_scan`.

    Raises ShardError, and FeatureError for a name that is not there.
    """
    dataset = open_dataset(data)
    wanted = name or next(iter(dataset.scan_names), None)
    for number in range(len(dataset)):
        if dataset.scan_names[dataset.scan_of(number)] == wanted:
            point = dataset[number].actors[0].cloud.point
            return point, np.arange(len(point)), len(point)
    known = ", ".join(dataset.scan_names[:5])
    raise FeatureError(f"{data}: no sequence of a scan {wanted!r}; there are {len(dataset.scan_names)}: {known}, ...")


def voxelise(point: np.ndarray, voxel_m: float) -> tuple[Voxels, np.ndarray]:
    """Voxels of points (n, 3) float32 metres as they lie, and the row (n,) int64 of each point's voxel.

    Raises BatchError for points that are not finite or too far out.
    """
    planes = np.packbits(np.ones((1, len(point)), bool), axis=1)
    matrix = np.eye(3, 4) / voxel_m
    grid, rows, row = Grid(), Rows(4, new_tensor), np.empty(len(point), np.int64)
    grid.clear(len(point), 1)
    grid.mark(point, planes, 0, matrix)
    grid.write(0, rows)
    grid.rows_of(point, planes[0], 0, matrix, np.arange(len(point)), row)
    return rows.voxels(), row


def point_features(backbone: Backbone, point: np.ndarray, device: torch.device) -> np.ndarray:
    """Features of points (n, 3) float32 metres, z up: those of the voxel of each, (n, channels) float32."""
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


def draw(point: np.ndarray, colours: np.ndarray, out: pathlib.Path) -> None:
    """A picture of points (n, 3) seen from above, without what lies over 2 m above the lowest percentile."""
    import matplotlib  # not needed by any other command

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seen = point[:, 2] < np.percentile(point[:, 2], 1) + 2
    order = np.flatnonzero(seen)[np.argsort(point[seen, 2], kind="stable")]
    figure, axes = pyplot.subplots(figsize=(8, 8), dpi=150)
    axes.scatter(point[order, 0], point[order, 1], c=colours[order], s=1, linewidths=0)
    axes.set_aspect("equal")
    axes.set_xlabel("x, m")
    axes.set_ylabel("y, m")
    figure.savefig(out, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
