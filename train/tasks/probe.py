"""Probes of frozen features: what a linear layer and what nearest neighbours can read from them, whether they tell
objects apart (`objectness.py`), and whether they know a shape that has moved (`moved.py`).

Features of labelled scans are standardised by the mean and spread of the training samples. The linear probe is the
multinomial logistic regression of least loss (convex: it depends on no schedule), k-NN votes by cosine similarity. The
same is done with the features of a random net of the same shape, as the floor: norms of both nets take their
statistics from the training scans (`calibrate`), so that both are seen at their best scale.

Shapes. n sampled voxels, q queried points, C channels, K classes.
"""

import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from gen4d import files
from gen4d.shards import Dataset
from train.config import check, one_of, positive, seed, to_plain, voxel_sizes, workers
from train.inputs.labelled import LabelledData, LabelUse
from train.inputs.labels import NONE
from train.inputs.order import keyed_generator
from train.inputs.scans import LabelledScan
from train.inputs.voxels import voxelise
from train.nets.heads import CHANNELS_IN, occupancy
from train.nets.unet import NETS, UNet
from train.nets.weights import Backbone, check_geometry, weights_digest
from train.run.world import to_device
from train.tasks.backbone import calibrate
from train.tasks.metrics import confusion, scores
from train.tasks.moved import Moved, moved
from train.tasks.objectness import Seen, objectness
from train.tasks.segment.batch import voxel_labels
from train.tasks.segment.evaluate import Evaluation, Seeing, evaluate
from train.tasks.segment.model import Segmenter, SegmentError
from train.tasks.segment.report import as_json, scored, summary
from train.tasks.tables import aligned, percent

_CHUNK = 1024  # queries compared with all samples at a time


@dataclass(frozen=True)
class ProbeConfig:
    """Linear and k-NN probe of frozen features; all choices are ours (A)."""

    net: str = "34"  # of random features, where no weights say which
    voxel_m: float = 0.02
    labels: LabelUse = LabelUse()
    samples: int = 50_000  # labelled voxels of the training scans that probes learn from, an equal share a scan
    decay: float = 1e-4  # weight of half the squared norm of the linear probe's weights, on standardised features
    iterations: int = 200  # of L-BFGS, at most
    neighbours: int = 20
    temperature: float = 0.07  # a neighbour's vote is exp(cosine / temperature)
    queries: int = 20_000  # labelled points of the validation scans that k-NN is asked for, an equal share a scan
    seed: int = 0  # of random features, samples and queries
    workers: int = 2

    def __post_init__(self):
        rules = [
            one_of(self, "net", NETS),
            *voxel_sizes(self, "voxel_m"),
            *positive(self, "samples", "iterations", "neighbours", "queries"),
            ("decay", self.decay > 0, "above 0, or separable classes have no solution"),
            ("temperature", self.temperature > 0, "above 0"),
            seed(self),
            workers(self),
        ]
        check(self, rules)


PRESETS = {
    "paper": ProbeConfig(),
    "small": ProbeConfig(net="small", voxel_m=0.05, samples=20_000, queries=10_000),
}


class Samples(NamedTuple):
    """Features (n, C) float32 on the device, and their classes (n,) int64."""

    features: torch.Tensor
    label: torch.Tensor


class Scale(NamedTuple):
    """Mean and standard deviation (C,) of the training samples' features."""

    mean: torch.Tensor
    spread: torch.Tensor

    def of(self, features: torch.Tensor) -> torch.Tensor:
        """Standardised features (n, C)."""
        return (features - self.mean) / self.spread


class Probed(NamedTuple):
    """What both probes of one net's features found."""

    features: str
    linear: Evaluation
    knn: np.ndarray  # (K, K + 1) confusion over sampled points
    objectness: float  # NaN where no two objects touch, or scans have no instances
    moved: Moved | None = None  # of a data set of moving shapes, if one was given and has their classes


def probe(
    config: ProbeConfig,
    data: LabelledData,
    weights: Backbone | None,
    device: torch.device,
    moving: Dataset | None = None,
) -> Iterator[Probed]:
    """Probe the features of weights, where there are any, and random ones. moving: sequences whose moving shapes are
    asked for as well. Raises SegmentError, SceneError, CheckpointError, FormatError."""
    if weights is not None:
        check_geometry(weights)
    shape = NETS[config.net] if weights is None else weights.net.shape
    random = UNet(shape, 3, torch.Generator().manual_seed(config.seed), CHANNELS_IN)
    nets = {"random": random} if weights is None else {"weights": weights.net, "random": random}
    for name, net in nets.items():
        calibrate(net, data.train, config.voxel_m, device)
        yield _probe(name, net, config, data, device, moving)


def _probe(
    name: str, net: UNet, config: ProbeConfig, data: LabelledData, device: torch.device, moving: Dataset | None
) -> Probed:
    """Both probes of one net in evaluation mode on its device."""
    classes = len(data.table.names)
    backbone = Backbone(net, config.voxel_m)
    known, scale = standardised(backbone, data.train, config, classes, device)
    model = Segmenter(net, classes, torch.Generator().manual_seed(config.seed), frozen=True).to(device)
    put_linear(model, scale, *fit_linear(known, classes, config.decay, config.iterations))
    linear = evaluate(model, data.val, Seeing(config.voxel_m), device)
    asked = sample_points(backbone, data.val, config, device)

    def classes_of(features: torch.Tensor) -> np.ndarray:
        return vote(known, scale.of(features), classes, config.neighbours, config.temperature).cpu().numpy()

    def classes_in(point: np.ndarray, row: np.ndarray) -> np.ndarray:
        features, voxel = features_at(backbone, point, "a sequence", device)
        return classes_of(features[torch.from_numpy(voxel[row]).to(device)])

    found = confusion(asked.label.cpu().numpy(), classes_of(asked.features), classes)
    see = functools.partial(_seen, backbone, scale, device)
    told_apart = objectness(data.val, data.table, config.voxel_m, see, config.seed)
    if moving is None:
        return Probed(name, linear, found, told_apart)
    of_moving = moved(moving, data.table, classes_in, found, config.queries, config.seed)
    return Probed(name, linear, found, told_apart, of_moving)


def standardised(
    backbone: Backbone, scans: Sequence[LabelledScan], config: ProbeConfig, classes: int, device
) -> tuple[Samples, Scale]:
    """Samples of the training scans with standardised features, and their scale."""
    known = sample_voxels(backbone, scans, config, classes, device)
    scale = Scale(known.features.mean(0), known.features.std(0, correction=0).clamp(min=1e-6))
    return known._replace(features=scale.of(known.features)), scale


def _seen(backbone: Backbone, scale: Scale, device, scan: LabelledScan) -> Seen:
    """A scan's voxels with standardised features."""
    features, row = voxel_features(backbone, scan, device)
    cell = voxelise(scan.point, backbone.voxel_m)[0].coordinate[:, 1:].numpy()
    return Seen(cell, scale.of(features).cpu().numpy(), row)


# Features ------------------------------------------------------------------------------------------------------------


def voxel_features(backbone: Backbone, scan: LabelledScan, device) -> tuple[torch.Tensor, np.ndarray]:
    """Features (m, C) of a scan's voxels, and each point's voxel (N,)."""
    return features_at(backbone, scan.point, scan.name, device)


def features_at(backbone: Backbone, point: np.ndarray, name: str, device) -> tuple[torch.Tensor, np.ndarray]:
    """The same of points (N, 3)."""
    voxels, row = voxelise(point, backbone.voxel_m)
    voxels = to_device(voxels, device)
    with torch.no_grad():
        features = backbone.net(voxels, occupancy(voxels, next(backbone.net.parameters())), 1).float()
    if not torch.isfinite(features).all():
        raise SegmentError(f"features of {name} are not finite: the weights' training went wrong, use others")
    return features, row


def sample_voxels(
    backbone: Backbone, scans: Sequence[LabelledScan], config: ProbeConfig, classes: int, device
) -> Samples:
    """Voxels that have a class (that of most of their points), as many of every scan as `config.samples` allows."""
    share, parts = -(-config.samples // len(scans)), []
    for number, scan in enumerate(scans):
        features, row = voxel_features(backbone, scan, device)
        label = voxel_labels(row, scan.label, len(features), classes, "majority")
        parts.append(_draw(features, np.arange(len(label)), label, share, keyed_generator(config.seed, 0, number)))
    return _joined(parts)


def sample_points(backbone: Backbone, scans: Sequence[LabelledScan], config: ProbeConfig, device) -> Samples:
    """Points that have a class, with the features of their voxels, as many of every scan as `config.queries` allows."""
    share, parts = -(-config.queries // len(scans)), []
    for number, scan in enumerate(scans):
        features, row = voxel_features(backbone, scan, device)
        parts.append(_draw(features, row, scan.label, share, keyed_generator(config.seed, 1, number)))
    return _joined(parts)


def _draw(features: torch.Tensor, row: np.ndarray, label: np.ndarray, most: int, rng: np.random.Generator) -> Samples:
    """Up to `most` of those that have a class, drawn without replacement."""
    labelled = np.flatnonzero(label != NONE)
    chosen = np.sort(rng.permutation(labelled)[:most])
    index = torch.from_numpy(row[chosen]).to(features.device)
    return Samples(features[index], torch.from_numpy(label[chosen].astype(np.int64)).to(features.device))


def _joined(parts: Sequence[Samples]) -> Samples:
    return Samples(*(torch.cat(column) for column in zip(*parts, strict=True)))


# Probes --------------------------------------------------------------------------------------------------------------


def fit_linear(known: Samples, classes: int, decay: float, iterations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (K, C) and bias (K,) float64 of least mean cross-entropy + decay / 2 x |weight|^2, by L-BFGS from zero."""
    features, label = known.features.double(), known.label
    weight = torch.zeros(classes, features.shape[1], dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=features.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(features @ weight.T + bias, label) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return weight.detach(), bias.detach()


def put_linear(model: Segmenter, scale: Scale, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Makes a probe of standardised features the head of a segmenter, which sees them as they are."""
    folded = weight / scale.spread.double()
    with torch.no_grad():
        model.head.weight.copy_(folded)
        model.head.bias.copy_(bias - folded @ scale.mean.double())


def vote(known: Samples, asked: torch.Tensor, classes: int, neighbours: int, temperature: float) -> torch.Tensor:
    """The class (q,) int64 that the nearest samples give each query (q, C), by cosine similarity."""
    reference, query = F.normalize(known.features), F.normalize(asked)
    count = min(neighbours, len(reference))
    found = []
    for part in query.split(_CHUNK):
        similarity, index = (part @ reference.T).topk(count, dim=1)
        votes = torch.zeros(len(part), classes, dtype=similarity.dtype, device=part.device)
        votes.scatter_add_(1, known.label[index], ((similarity - 1) / temperature).exp())
        found.append(votes.argmax(dim=1))
    return torch.cat(found)


PROBE_HEAD = ("features", "probe", "mIoU", "mAcc", "mIoU 2 cm", "mAcc 2 cm", "counted on")
OBJECTNESS = "share of pairs of neighbouring voxels of one object that are more alike than pairs of two touching ones"
MOVED = "accuracy of k-NN among points at rest, the mean of"


def probe_rows(name: str, linear: Evaluation, knn: np.ndarray) -> list[list[str]]:
    """Rows under PROBE_HEAD: of the linear probe, on all points and on 2 cm voxels, and of k-NN on sampled points."""
    points, voxels, sampled = scores(linear.points), scores(linear.voxels), scores(knn)
    shares = [percent(as_json(share)) for share in (points.miou, points.macc, voxels.miou, voxels.macc)]
    some = [percent(as_json(share)) for share in (sampled.miou, sampled.macc)]
    return [
        [name, "linear", *shares, f"all {points.count.sum()} points"],
        [name, "k-NN", *some, "-", "-", f"{sampled.count.sum()} sampled points"],
    ]


def write_probes(
    folder: pathlib.Path,
    found: Sequence[Probed],
    data: LabelledData,
    weights: Backbone | None,
    config: ProbeConfig,
    machine: str,
) -> list[str]:
    """probe.json and probe.md of a run; returns the lines of probe.md."""
    names = data.table.names
    rows = [row for one in found for row in probe_rows(one.features, one.linear, one.knn)]
    lines = aligned(PROBE_HEAD, rows)
    told = ", ".join(f"{one.features} {percent(as_json(one.objectness))}" for one in found)
    lines += ["", f"objectness: {told}; {OBJECTNESS}, chance 50"]
    lines += _moved_lines(found)
    lines += [f"{len(data.train)} scans to learn from, {len(data.val)} to be tested on; {machine}"]
    results = {one.features: {"linear": summary(one.linear, names), "knn": scored(one.knn, names)} for one in found}
    for one in found:
        results[one.features] |= {"objectness": as_json(one.objectness), "moved": one.moved and one.moved._asdict()}
    about = {"machine": machine, "config": to_plain(config), "train_scans": [scan.name for scan in data.train]}
    about["weights"] = "none" if weights is None else weights_digest(weights)
    files.make_folder(folder)
    files.write(folder / "probe.json", (json.dumps(about | {"results": results}) + "\n").encode())
    files.write(folder / "probe.md", ("\n".join(lines) + "\n").encode())
    return lines


def _moved_lines(found: Sequence[Probed]) -> list[str]:
    known = [one for one in found if one.moved is not None]
    told = (f"{one.features} {percent(one.moved.moving)}, at rest {percent(one.moved.resting)}" for one in known)
    return [f"moving shapes: {'; '.join(told)}; {MOVED} {', '.join(known[0].moved.classes)}"] if known else []
