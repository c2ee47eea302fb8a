"""Static 3D scans and CAD shapes in, 4D sequences with exact correspondences out.

    gen4d.open_dataset(path)              the sequences of a data set
    gen4d.generate(points, shapes)        sequences in memory, from arrays
    gen4d.build_dataset(scans, shapes)    a data set from two folders, as `gen4d build` makes it; kind="frames" too
    gen4d.write_dataset(recordings, out)  a data set of sequences from anywhere

Every name is loaded when it is first used, so that importing gen4d takes no time.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from gen4d import compiled

__version__ = "0.2.0"

if TYPE_CHECKING:
    from gen4d.building import Built as Built
    from gen4d.building import Progress as Progress
    from gen4d.building import build_dataset as build_dataset
    from gen4d.building import merge as merge
    from gen4d.building import write_dataset as write_dataset
    from gen4d.config import Config as Config
    from gen4d.config import FramesConfig as FramesConfig
    from gen4d.config import SweepsConfig as SweepsConfig
    from gen4d.config import ViewsConfig as ViewsConfig
    from gen4d.moving.arrays import generate as generate
    from gen4d.sequence import Actor as Actor
    from gen4d.sequence import Cloud as Cloud
    from gen4d.sequence import FloorPlan as FloorPlan
    from gen4d.sequence import Frame as Frame
    from gen4d.sequence import Mover as Mover
    from gen4d.sequence import Recording as Recording
    from gen4d.sequence import Sequence as Sequence
    from gen4d.sequence import Views as Views
    from gen4d.sequence import make_actor as make_actor
    from gen4d.sequence import match_points as match_points
    from gen4d.shards import Dataset as Dataset
    from gen4d.shards import open_dataset as open_dataset
    from gen4d.shards.verify import verify as verify

_HOME = {
    "gen4d.building": ("Built", "Progress", "build_dataset", "merge", "write_dataset"),
    "gen4d.config": ("Config", "FramesConfig", "SweepsConfig", "ViewsConfig"),
    "gen4d.moving.arrays": ("generate",),
    "gen4d.sequence": tuple(
        "Actor Cloud FloorPlan Frame Mover Recording Sequence Views make_actor match_points".split()
    ),
    "gen4d.shards": ("Dataset", "open_dataset"),
    "gen4d.shards.verify": ("verify",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = ["__version__", *_MODULE]


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'gen4d' has no attribute {name!r}")
    importlib.import_module("gen4d.files")  # says so if this system cannot run gen4d
    if compiled.NOTE:
        warnings.warn(compiled.NOTE, stacklevel=2)
        compiled.NOTE = ""  # once
    value = getattr(importlib.import_module(_MODULE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
