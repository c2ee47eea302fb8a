"""Scans and shapes as they lie on users' disks: found through `datasets_manifest.yaml`, read with every check."""

from gen4d.sources.appearance import Appearance, read_appearance
from gen4d.sources.articulated import Joint
from gen4d.sources.level import Orientation, parse_units, split_up, up_rotation
from gen4d.sources.manifest import (
    add_glob,
    add_height,
    add_manifest,
    added_manifests,
    class_name_of,
    entry_of,
    entry_units,
    forget_manifests,
    height_ranges,
    know_manifests,
)
from gen4d.sources.scans import (
    FoundScans,
    Scan,
    ScanSource,
    default_orientation,
    find_scans,
    load_scan,
    scan_from_arrays,
)
from gen4d.sources.shapes import (
    AnyShape,
    FoundShapes,
    Mesh,
    MeshSource,
    ShapeSource,
    find_shapes,
    is_articulated,
    load_shape,
)
from gen4d.sources.source import PassingError, SourceError, SourceFile

__all__ = [
    "AnyShape",
    "Appearance",
    "FoundScans",
    "FoundShapes",
    "Joint",
    "Mesh",
    "MeshSource",
    "Orientation",
    "PassingError",
    "Scan",
    "ScanSource",
    "ShapeSource",
    "SourceError",
    "SourceFile",
    "add_glob",
    "add_height",
    "add_manifest",
    "added_manifests",
    "class_name_of",
    "default_orientation",
    "entry_of",
    "entry_units",
    "find_scans",
    "find_shapes",
    "forget_manifests",
    "height_ranges",
    "is_articulated",
    "know_manifests",
    "load_scan",
    "load_shape",
    "parse_units",
    "read_appearance",
    "scan_from_arrays",
    "split_up",
    "up_rotation",
]
