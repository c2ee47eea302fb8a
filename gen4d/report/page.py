"""A page of one scan with all its sequences: one HTML file that opens without a network, a server or a library.

A cloud is in it once, rounded to a millimetre; a frame is the bits of its masks, exactly as they are stored. What the
page does with them is in page.js, which asks for WebGL 2 alone.
"""

import base64
import math
import pathlib
import zlib

import numpy as np

from gen4d import files
from gen4d.report import sheet
from gen4d.report.scene import HEADROOM_M, INNER, chosen_pairs, framed, outward, title
from gen4d.sequence import ROLES, Cloud, FloorPlan, Sequence, frame_pairs
from gen4d.shards import Dataset
from gen4d.sources.manifest import manifest

_FINEST_M = 0.001  # step to which points are rounded
_STEPS = 60_000  # over a cloud's extent at least: what is smaller than a room gets finer ones


def write_page(dataset: Dataset, first: int, path: pathlib.Path) -> str:
    """Write the page of the scan of sequence `first`, which is shown first; returns what it holds, in words."""
    scan = dataset.scan_names[dataset.scan_of(first)]
    numbers = dataset.numbers(scan)
    files.make_folder(path.parent)
    files.write(path, _page(dataset, numbers, first).encode())
    return f"{scan}, {len(numbers)} {'sequence' if len(numbers) == 1 else 'sequences'}"


def _page(dataset: Dataset, numbers: range, first: int) -> str:
    scene, payload = describe(dataset, numbers, first)
    return sheet.fill(
        "page.html",
        CSS=sheet.read("page.css"),
        SCRIPT=sheet.read("page.js"),
        SCENE=sheet.as_json(scene),
        DATA=base64.b64encode(zlib.compress(payload, 9)).decode(),
        TITLE=scene["scan"],
    )


class _Store:
    """Bytes of arrays one after another; an array is known by where it begins and how many bytes it has."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, array: np.ndarray) -> list[int]:
        content = np.ascontiguousarray(array).tobytes()
        place = [self.size, len(content)]
        self.parts.append(content)
        self.size += len(content)
        return place


def describe(dataset: Dataset, numbers: range, first: int) -> tuple[dict, bytes]:
    """What a page knows of the sequences of one scan: a JSON value, and the bytes of the arrays that it names."""
    store, clouds, known = _Store(), [], {}
    sequences = [dataset[i] for i in numbers]
    plan = dataset.floor_plan(numbers[0])
    shown = []
    for sequence in sequences:
        for actor in sequence.actors:
            if id(actor.cloud) not in known:
                known[id(actor.cloud)] = len(clouds)
                clouds.append(_cloud(actor.cloud, plan if not clouds else None, store))
        shown.append(_sequence(sequence, plan, known, store))
    scene = {
        "scan": sequences[0].scan,
        "kind": sequences[0].kind,
        "first": numbers.index(first),
        "labels": _label_names(dataset.label_space(numbers[0])),
        "floor": None if plan is None else _floor(plan, store),
        "clouds": clouds,
        "sequences": shown,
        "roles": list(ROLES),
    }
    return scene, b"".join(store.parts)


def _label_names(space: str) -> dict[str, str]:
    known = manifest().label_spaces.get(space)
    return {str(number): name for number, name in known.names.items()} if known else {}


def _floor(plan: FloorPlan, store: _Store) -> dict:
    return {
        "valid": store.add(plan.valid.astype(np.uint8)),
        "shape": list(plan.valid.shape),
        "origin": [int(v) for v in plan.origin],
        "cell": plan.cell_m,
        "z": round(float(plan.floor_m), 4),
    }


def _cloud(cloud: Cloud, plan: FloorPlan | None, store: _Store) -> dict:
    """A cloud's points as differences from one to the next in steps, low bytes before high ones, which packs well."""
    point = cloud.point.astype(np.float64)
    low = point.min(axis=0) if len(point) else np.zeros(3)
    extent = float(np.ptp(point, axis=0).max()) if len(point) else 0.0
    step = min(_FINEST_M, extent / _STEPS) if extent else _FINEST_M
    whole = np.rint((point - low) / step).astype(np.int64)
    change = np.diff(whole, axis=0, prepend=np.zeros((1, 3), np.int64))
    folded = np.where(change < 0, -2 * change - 1, 2 * change).astype("<u4")
    split = folded.T.copy().view(np.uint8).reshape(3, len(point), 4).transpose(0, 2, 1)  # axis, byte, point
    return {
        "n": len(point),
        "low": [float(v) for v in low],
        "step": step,
        "point": store.add(split),
        "label": None if cloud.label is None else store.add(cloud.label.astype("<i4")),
        "instance": None if cloud.instance is None else store.add(cloud.instance.astype("<i4")),
        "outward": None if plan is None else store.add(outward(cloud.point, plan)),
    }


def _sequence(sequence: Sequence, plan: FloorPlan | None, known: dict[int, int], store: _Store) -> dict:
    frames = sequence.frames
    top = plan.floor_m + HEADROOM_M if plan is not None else math.inf
    point = np.concatenate([frame.point for frame in frames])
    centre, radius = framed(point, plan)
    actors = [
        {
            "cloud": known[id(actor.cloud)],
            "role": actor.role,
            "mover": actor.mover,
            "pose": store.add(actor.pose.transpose(0, 2, 1).astype("<f4")),  # by columns, as WebGL has matrices
            "planes": store.add(actor.planes),
        }
        for actor in sequence.actors
    ]
    pairs = []
    for i, j in frame_pairs(sequence.t):
        rows = np.array([pair[:2] for pair in chosen_pairs(sequence, frames, top, i, j)], np.int64).reshape(-1, 2)
        ends = [(frames[f].actor[rows[:, side]], frames[f].point_index[rows[:, side]]) for side, f in enumerate((i, j))]
        pairs.append(store.add(np.stack([column for end in ends for column in end], axis=1).astype("<i4")))
    return {
        "id": sequence.id,
        "title": title(sequence),
        "t": sequence.t,
        "points": [len(frame.point) for frame in frames],
        "actors": actors,
        "movers": [_mover(mover) for mover in sequence.movers],
        "pairs": pairs,
        "centre": centre,
        "radius": radius,
        "cut": round(top, 3) if plan is not None else None,
        "low": round(float(np.quantile(point[:, 2], INNER[0])) if len(point) else 0.0, 3),
        "high": round(float(np.quantile(point[:, 2], INNER[1])) if len(point) else 1.0, 3),
    }


def _mover(mover) -> dict:
    figures = {"height": mover.height_m, "radius": mover.radius_m, "shrink": mover.shrink}
    rounded = {name: None if math.isnan(value) else round(float(value), 4) for name, value in figures.items()}
    return {"shape": mover.shape, "class": mover.class_name} | rounded
