"""Fine-tuning from labelled scans to a run folder: the loop of pre-training, with validations in between.

<run>/config.json, checkpoint-*, log.jsonl, tensorboard/   as in pre-training
<run>/train_scans.txt, val_scans.txt    names of the scans whose labels were learned, and of those validated on
<run>/validation.jsonl                  a line per validation: step and scores
<run>/best/checkpoint-*                 weights with the best mIoU on all points so far, among all validations
"""

import contextlib
import hashlib
import itertools
import json
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.utils.tensorboard import SummaryWriter

from gen4d import files
from train import checkpoint
from train.features import Backbone, load_backbone
from train.log import Record, read_lines
from train.loop import Plan, train
from train.memory import Estimate, kept_bytes, level_counts
from train.presets import to_plain
from train.pretrain import DTYPE, resolve_precision
from train.tasks.evaluate import Evaluation, evaluate
from train.tasks.outputs import COUNTED, summary, write_results
from train.tasks.presets import FREE, ProbeConfig, SegmentConfig
from train.tasks.scenes import (
    LabelledScan,
    LabelTable,
    check_apart,
    choose_subset,
    find_part,
    limit,
    read_limited_points,
    read_scans,
    table_of,
)
from train.tasks.segment import ScanLoader, Segmenter, calibrate, make_loader, make_model, make_optimiser
from train.world import World

TASK = "segment"
BEST = "best"


class Job(NamedTuple):
    """What is fine-tuned on what. weights None: from scratch. origin: of the choice of training scans. points: digest
    of a file of limited points, or empty."""

    table: LabelTable
    train: Sequence[LabelledScan]
    val: Sequence[LabelledScan]
    weights: Backbone | None
    origin: str = ""
    points: str = ""


class Inputs(NamedTuple):
    """What the user gives: the folder of scans, list files or None, a file of limited points or None, and weights (a
    run folder, a checkpoint or exported weights) or None."""

    data: pathlib.Path
    split: pathlib.Path | None = None
    val_split: pathlib.Path | None = None
    points: pathlib.Path | None = None
    weights: pathlib.Path | None = None


def read_job(inputs: Inputs, config: SegmentConfig | ProbeConfig, say: Callable[[str], None]) -> Job:
    """Read scans and weights. Raises SourceError, SceneError, CheckpointError, FeatureError."""
    train, val = find_part(inputs.data, "train", inputs.split), find_part(inputs.data, "val", inputs.val_split)
    for warning in (*train.warnings, *val.warnings):
        warnings.warn(warning, stacklevel=2)
    table = table_of(train.entry, config.label_space)
    names = [source.name for source in train.scans]
    subset = choose_subset(inputs.data, train.entry, names, config.percent, config.subset_seed)
    check_apart(subset.names, [source.name for source in val.scans])
    kept = [source for source in train.scans if source.name in set(subset.names)]
    say(f"labels of {len(kept)} of {len(names)} training scans: {subset.origin}; {len(val.scans)} scans to validate on")
    scans = read_scans(kept, table, config.workers)
    digest = ""
    if inputs.points:
        scans = limit(scans, read_limited_points(inputs.points), inputs.points)
        digest = files.sha256(inputs.points)
    weights = read_weights(inputs.weights, config.voxel_m)
    return Job(table, scans, read_scans(val.scans, table, config.workers), weights, subset.origin, digest)


def read_weights(path: pathlib.Path | None, voxel_m: float) -> Backbone | None:
    """A pre-trained backbone; warns where it was trained on other voxels. Raises CheckpointError, FeatureError."""
    if path is None:
        return None
    weights = load_backbone(path)
    if weights.voxel_m != voxel_m:
        there, here = f"{100 * weights.voxel_m:g} cm", f"{100 * voxel_m:g} cm"
        warnings.warn(f"{path}: trained on voxels of {there}, used on {here}: it may transfer badly", stacklevel=3)
    return weights


class Validation(NamedTuple):
    """Scores at a step, and whether they are the best so far."""

    step: int
    evaluation: Evaluation
    best: bool


def stored_config(config: SegmentConfig, job: Job, precision: str) -> dict:
    """What a run and its checkpoints remember: a rerun must ask for the same, but for `presets.FREE`."""
    about = {
        "task": TASK,
        "data": _digest(job.train),
        "val": _digest(job.val),
        "classes": list(job.table.names),
        "points": job.points,
        "weights": "none" if job.weights is None else weights_digest(job.weights),
    }
    return about | to_plain(config) | {"precision": precision}


def _digest(scans: Sequence[LabelledScan]) -> str:
    text = "".join(f"{scan.name} {scan.digest}\n" for scan in scans)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(weights: Backbone) -> str:
    """SHA-256 over a backbone's names and values."""
    digest = hashlib.sha256()
    for name, value in weights.net.state_dict().items():
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def finetune(config: SegmentConfig, job: Job, run: pathlib.Path, world: World) -> Iterator[Record | Validation]:
    """Fine-tune in a run folder, going on from where it is; yields the log's records and, on the leading process, what
    validations found, the last one when all steps are made.

    Raises what `train.loop.train` raises, LoaderError, BatchError, SegmentError.
    """
    precision = resolve_precision(config, world.device)
    stored = stored_config(config, job, precision)
    loader = make_loader(config, job.train, len(job.table.names), world)
    model = make_model(config, len(job.table.names), job.weights)
    if model.frozen:
        calibrate(model.backbone, job.train, config.voxel_m, world.device)
    model.to(world.device, DTYPE[precision])
    torch.manual_seed(config.seed)
    if world.leads:
        checkpoint.claim(run, stored, FREE)
        _write_names(run, job)
    world.wait()
    same = {name: getattr(config, name) for name in Plan._fields if hasattr(config, name)}
    plan = Plan(**same | {"precision": precision, "config": stored})
    validate = _Validator(config, job, run, stored, world)
    for record in train(model, make_optimiser(config, model), loader.batches, plan, run, world):
        yield record
        if record.step % config.validate_steps == 0 and record.step < config.steps and world.leads:
            yield validate(model, record.step)
    if world.leads:
        yield validate(model, config.steps)


def _write_names(run: pathlib.Path, job: Job) -> None:
    for name, origin, scans in (("train", job.origin, job.train), ("val", "validated on", job.val)):
        lines = [f"# {origin}", *(scan.name for scan in scans)]
        files.write(run / f"{name}_scans.txt", ("\n".join(lines) + "\n").encode())


class _Validator:
    """Evaluates a model, logs what it finds and keeps the best weights."""

    def __init__(self, config: SegmentConfig, job: Job, run: pathlib.Path, stored: dict, world: World):
        self._config, self._job, self._run, self._stored, self._device = config, job, run, stored, world.device

    def __call__(self, model: Segmenter, step: int) -> Validation:
        found = evaluate(model, self._job.val, self._config.voxel_m, self._device)
        scored = summary(found, self._job.table.names)
        lines = [line for line in read_lines(self._run / "validation.jsonl") if line["step"] < step]
        lines.append({"step": step} | scored)
        files.write(self._run / "validation.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
        with contextlib.closing(SummaryWriter(str(self._run / "tensorboard"))) as board:
            for kind, name in itertools.product(COUNTED, ("miou", "macc")):
                board.add_scalar(f"validation/{kind}/{name}", scored[kind][name] or 0.0, step)
        miou = scored["points"]["miou"] or 0.0
        before, _ = checkpoint.newest(self._run / BEST)
        best = before is None or miou > before.plain["miou"]
        if best:
            files.make_folder(self._run / BEST)
            # Nothing is trained on from here: the optimiser is an empty one.
            nothing = torch.optim.SGD([torch.nn.Parameter(torch.zeros(0))])
            checkpoint.save(self._run / BEST, step, self._stored, model, nothing, {"miou": miou})
        return Validation(step, found, best)


def conclude(run: pathlib.Path, last: Validation, about: dict) -> list[str]:
    """Write results.json, results.md and confusion.png of a finished run: the last checkpoint and the best one. Returns
    the lines of results.md."""
    config = json.loads((run / "config.json").read_bytes())
    found, _ = checkpoint.newest(run / BEST)
    lines = read_lines(run / "validation.jsonl")
    of_step = {line.pop("step"): line for line in lines}
    chosen = {"last": last.step, "best": found.step}
    about = about | {"step": chosen, "validations": len(lines), "config": config}
    return write_results(run, {name: of_step[step] for name, step in chosen.items()}, last.evaluation, about)


# Memory --------------------------------------------------------------------------------------------------------------


def estimate(loader: ScanLoader, model: Segmenter, precision: str) -> Estimate:
    """Memory for training `model` on batches of `loader`, from the voxels of its first scans."""
    size = loader.share.part_size
    sampled = min(size, 4)
    voxels = loader.sample(sampled).voxels
    scale, element = size / sampled, {"float16": 2, "float32": 4, "float64": 8}[precision]
    shape = model.backbone.shape
    kept = 0 if model.frozen else kept_bytes(shape, 3, level_counts(voxels, shape.levels), element)
    parameters = sum(p.numel() for p in model.parameters())
    tensors = int(len(voxels.coordinate) * (4 * 4 + 8) * scale)
    return Estimate(
        voxels_3d=int(len(voxels.coordinate) * scale),
        voxels_4d=0,
        parameters=parameters,
        weights=parameters * (3 * max(element, 4) + (element if precision == "float16" else 0)),
        kept=int(kept * scale),
        batch=tensors,
        host=tensors * (loader.workers + 1) * 3 // 2,
    )
