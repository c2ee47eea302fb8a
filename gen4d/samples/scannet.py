"""Simulated scans on disk, in ScanNet's layout.

A scan's folder holds `<scan>_vh_clean_2.ply` (the coloured mesh), `<scan>_vh_clean_2.labels.ply` (the same with a nyu40
label per vertex), `<scan>_vh_clean_2.0.010000.segs.json` (the over-segmentation), `<scan>.aggregation.json` (the
segments of every annotated object) and `<scan>.txt` (what is known of the recording).
"""

import json
from pathlib import Path

import numpy as np

from gen4d.samples.camera.scanner import Capture
from gen4d.samples.objects.pieces import CATEGORY_CLASS, CATEGORY_ID

_CORNERS = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("alpha", "u1")]
_PLY_TYPE = {"<f4": "float", "u1": "uchar", "<u2": "ushort"}
_MODELNET = {
    "bathtub": "bathtub",
    "bed": "bed",
    "chair": "chair",
    "desk": "desk",
    "dresser": "dresser",
    "night_stand": "night_stand",
    "sofa": "sofa",
    "table": "table",
    "toilet": "toilet",
    "bookshelf": "bookshelf",
    "lamp": "lamp",
    "sink": "sink",
}


def write_scan(folder: Path, scan: Capture, kind: str, aligned: bool) -> None:
    """Writes one scan as `folder`, whose name is the scan's. `aligned` tells whether the `axisAlignment` line is there.

    Raises OSError where the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = folder.name
    (folder / f"{name}_vh_clean_2.ply").write_bytes(_ply(scan, False))
    (folder / f"{name}_vh_clean_2.labels.ply").write_bytes(_ply(scan, True))
    segments = {
        "params": {"kThresh": "0.0001", "segMinVerts": "20"},
        "sceneId": name,
        "segIndices": scan.segment.tolist(),
    }
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(segments, separators=(",", ":")))
    (folder / f"{name}.aggregation.json").write_text(json.dumps(_aggregation(name, scan), indent=1))
    (folder / f"{name}.txt").write_text(_facts(scan, kind, aligned))


def _ply(scan: Capture, labelled: bool) -> bytes:
    """A binary little-endian PLY with vertices and triangles; with labels, the colours tell the classes apart."""
    fields = [*_CORNERS, ("label", "<u2")] if labelled else _CORNERS
    vertex = np.empty(len(scan.point), fields)
    vertex["x"], vertex["y"], vertex["z"] = scan.point.T
    color = _class_color(scan.label) if labelled else scan.color
    vertex["red"], vertex["green"], vertex["blue"], vertex["alpha"] = color.T
    if labelled:
        vertex["label"] = scan.label
    face = np.empty(len(scan.face), [("count", "u1"), ("index", "<i4", (3,))])
    face["count"], face["index"] = 3, scan.face
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    header += [f"property {_PLY_TYPE[kind]} {name}" for name, kind in fields]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertex.tobytes() + face.tobytes()


def _class_color(label: np.ndarray) -> np.ndarray:
    """A colour per nyu40 id, (N, 4) uint8; unlabelled is black."""
    hue = (label * 0.618034) % 1.0
    rgb = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0, 1) * 0.75 + 0.2
    color = np.full((len(label), 4), 255, np.uint8)
    color[:, :3] = np.where(label[:, None] > 0, rgb * 255, 0)
    return color


def _aggregation(name: str, scan: Capture) -> dict:
    """Every annotated object with the segments that make it up."""
    groups = []
    for instance in np.unique(scan.instance[scan.instance >= 0]):
        parts = np.unique(scan.segment[scan.instance == instance]).tolist()
        groups.append({"id": len(groups), "objectId": len(groups), "segments": parts, "label": scan.names[instance]})
    return {
        "sceneId": f"scannet.{name}",
        "segGroups": groups,
        "segmentsFile": f"scannet.{name}_vh_clean_2.0.010000.segs.json",
    }


def _facts(scan: Capture, kind: str, aligned: bool) -> str:
    rows = [f"numDepthFrames = {scan.frames}", f"sceneType = {kind.capitalize()}"]
    if aligned:
        rows.insert(0, "axisAlignment = " + " ".join(f"{number:.6f}" for number in scan.align.ravel()))
    return "\n".join(rows) + "\n"


def label_table(count: dict[str, int]) -> str:
    """The text of `scannetv2-labels.combined.tsv`: every category, its nyu40 class, how often it was annotated."""
    rows = ["id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class\teigen13class\tModelNet40"]
    for number, (name, label) in enumerate(CATEGORY_CLASS.items(), start=1):
        words = [
            str(number),
            name,
            name,
            str(count.get(name, 0)),
            str(CATEGORY_ID[name]),
            "",
            label,
            label,
            "",
            _MODELNET.get(label, ""),
        ]
        rows.append("\t".join(words))
    return "\n".join(rows) + "\n"
