"""What lies beside a scan's points: labels, instances, the alignment of its axes."""

import numpy as np

from gen4d.sources.files import SourceError, SourceFile, read_file
from gen4d.sources.points import read_points
from gen4d.sources.table import PointTable


def read_labels(source, table: PointTable, files: list[SourceFile]) -> np.ndarray | None:
    """(N,) int32 labels: from the labels file, else from segments, else of the points file itself, else None."""
    if "labels" not in source.files:
        return table.label
    path = source.root / source.files["labels"]
    content, file = read_file(source.root, source.files["labels"])
    label = read_points(path, content).label
    if label is None:
        raise SourceError(path, "has no property `label`: download it again, or remove it to go without labels")
    files.append(file)
    if len(label) != len(table.point):
        raise SourceError(
            path, f"labels {len(label)} vertices and {source.files['points']} has {len(table.point)}: they must agree"
        )
    return label


def read_instances(source, table: PointTable, files: list[SourceFile]) -> np.ndarray | None:
    return table.instance


def read_alignment(source, files: list[SourceFile]) -> np.ndarray | None:
    return None
