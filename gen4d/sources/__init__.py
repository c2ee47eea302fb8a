"""Scans and shapes as they lie on users' disks: found through `datasets_manifest.yaml`, read with every check."""

from gen4d.sources.files import SourceError, SourceFile
from gen4d.sources.level import Orientation, parse_units, split_up, up_rotation
from gen4d.sources.manifest import height_range
from gen4d.sources.scans import FoundScans, Scan, ScanSource, default_orientation, find_scans, load_scan
from gen4d.sources.shapes import FoundShapes, Mesh, ShapeSource, find_shapes, load_shape

__all__ = [
    "FoundScans",
    "FoundShapes",
    "Mesh",
    "Orientation",
    "Scan",
    "ScanSource",
    "ShapeSource",
    "SourceError",
    "SourceFile",
    "default_orientation",
    "find_scans",
    "find_shapes",
    "height_range",
    "load_scan",
    "load_shape",
    "parse_units",
    "split_up",
    "up_rotation",
]
