"""What a backbone is good for while it is pre-trained: a figure and a picture every so many steps.

<run>/probe.jsonl    a line per look: step, and `retrieval` or, with labelled scans, `knn`
<run>/features.png   features of a scan by their principal components, as of the last look; TensorBoard keeps all

The net is seen as it is, with its running norm statistics; nothing that trains is touched and nothing is drawn, so that
a run with looks computes what it computes without.
"""

import contextlib
import json
import math
import pathlib
from typing import NamedTuple

import matplotlib.image
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from gen4d import files
from gen4d.sequence import Sequence
from train.errors import Refused
from train.inputs.labelled import LabelledData
from train.inputs.voxels import voxelise
from train.nets.heads import CHANNELS_IN
from train.nets.unet import UNet
from train.nets.weights import Backbone
from train.run.log import read_lines
from train.run.world import to_device
from train.tasks import probe
from train.tasks.features import FeatureError, principal_colours
from train.tasks.metrics import confusion, scores
from train.tasks.pictures import Panel, draw

SCANS = 8, 4  # labelled scans that k-NN learns from, and that it is asked for
_POINTS = 1000  # of a pair of frames, among which a point's counterpart is looked for
_TURN = 1.0  # radians between the two frames: at rest, a static point would be found by its place


class Watched(NamedTuple):
    """What is looked at: labelled scans, or else the sequences."""

    voxel_m: float
    sequences: list[Sequence]
    labelled: LabelledData | None


class Looks:
    """A look every so many steps of a run, and at its last one."""

    def __init__(self, watched: Watched, net: UNet, every: int, last: int, run: pathlib.Path, device: torch.device):
        """net: part of the model that trains, on `device` by then; every: steps; last: the run's last step."""
        self._given, self._every, self._last, self._done = (watched, net), every, last, -1
        self._place = run, device

    def at(self, step: int) -> str:
        """What is seen at a step, as a line for eyes; nothing where no look is due."""
        number, first = step // self._every, self._done < 0
        due = number > ((step - 1) // self._every if first else self._done) or step >= self._last
        self._done = number
        if not due:
            return ""
        try:
            figures = look(*self._given, step, *self._place)
        except Refused as error:  # of a scan that is too large, or features that are not finite: no reason to stop
            return f"not seen ({error})"
        return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def look(watched: Watched, net: UNet, step: int, run: pathlib.Path, device: torch.device) -> dict[str, float]:
    """The figures of a net on its device at a step, which go to the run's folder with a picture. The net is left in the
    mode it was in. Raises Refused where features cannot be had, OSError."""
    training = net.training
    try:
        return _look(watched, Backbone(net.eval(), watched.voxel_m), step, run, device)
    finally:
        net.train(training)


def _look(watched: Watched, seen: Backbone, step: int, run: pathlib.Path, device: torch.device) -> dict[str, float]:
    if watched.labelled:
        figures = neighbours(seen, watched.labelled, device)
        point = watched.labelled.val[0].point
    else:
        looked = [retrieval(seen, sequence, device) for sequence in watched.sequences]
        found = [share for share in looked if share is not None]
        if not found:
            raise FeatureError(f"{len(looked)} sequences share no point between their first and last frames")
        figures = {"retrieval": sum(found) / len(found)}
        point = watched.sequences[0].frame(0).point
    features = _features(seen, point, device)[0].cpu().numpy()
    if not np.isfinite(features).all():
        raise FeatureError(f"features at step {step} are not finite")
    draw(point, [Panel(principal_colours(features))], run / "features.png")
    _write(run, step, figures)
    return figures


def neighbours(seen: Backbone, data: LabelledData, device: torch.device) -> dict[str, float]:
    """k-NN by features over a few labelled scans, as `train.tasks.probe` has it: mean IoU and share of right points."""
    config, classes = probe.PRESETS["small"], len(data.table.names)
    known, scale = probe.standardised(seen, data.train[: SCANS[0]], config, classes, device)
    asked = probe.sample_points(seen, data.val[: SCANS[1]], config, device)
    found = probe.vote(known, scale.of(asked.features), classes, config.neighbours, config.temperature)
    scored = scores(confusion(asked.label.cpu().numpy(), found.cpu().numpy(), classes))
    return {"knn/miou": scored.miou, "knn/accuracy": scored.accuracy}


def retrieval(seen: Backbone, sequence: Sequence, device: torch.device) -> float | None:
    """Share of points of the first frame whose nearest by features, among up to 1,000 points of the last frame turned
    by a radian, lies in the voxel of their counterpart; None where the frames share no point."""
    first, last = 0, sequence.t - 1
    pair = np.stack(sequence.correspondences(first, last))
    if not pair.size:
        return None
    pair = pair[:, :: -(-pair.shape[1] // _POINTS)]
    cos, sin = math.cos(_TURN), math.sin(_TURN)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    points = sequence.frame(first).point, sequence.frame(last).point @ turn.T
    (p, _), (z, row) = (_features(seen, point, device, index) for point, index in zip(points, pair, strict=True))
    nearest = (torch.nn.functional.normalize(p) @ torch.nn.functional.normalize(z).T).argmax(1).cpu().numpy()
    return float((row[nearest] == row).mean())


def _features(seen: Backbone, point: np.ndarray, device, index=slice(None)) -> tuple[torch.Tensor, np.ndarray]:
    """Features (k, channels) of some points (n, 3), by default all of them, and the voxel (k,) of each."""
    voxels, row = voxelise(np.ascontiguousarray(point, np.float32), seen.voxel_m)
    row, weight = row[index], next(seen.net.parameters())
    with torch.no_grad():
        given = weight.new_ones(len(voxels.coordinate), CHANNELS_IN)
        features = seen.net(to_device(voxels, device), given, 1).float()
    return features[torch.from_numpy(row).to(device)], row


def _write(run: pathlib.Path, step: int, figures: dict[str, float]) -> None:
    path = run / "probe.jsonl"
    lines = [line for line in read_lines(path) if line["step"] < step]
    lines.append({"step": step, **{name: None if math.isnan(value) else value for name, value in figures.items()}})
    files.write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    picture = matplotlib.image.imread(run / "features.png")[:, :, :3]
    with contextlib.closing(SummaryWriter(str(run / "tensorboard"))) as board:
        for name, value in figures.items():
            board.add_scalar(f"probe/{name}", value, step)
        board.add_image("features", picture, step, dataformats="HWC")
