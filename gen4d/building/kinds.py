"""The kinds of sequences that are built: what a build has to know of each, and the one place where it is chosen.

A kind is a module beside this one. Everything else of a build (plan, shards, workers, parts, resuming, estimates) is
the same for all.
"""

import importlib
from typing import Any, Protocol

from gen4d.building.errors import BuildError
from gen4d.building.inputs import Found, Given, Inputs, Made
from gen4d.config import BUILT, AnyConfig


class Kind(Protocol):
    """The module of a kind, or of two that differ in their config alone. Values that it takes from one of its functions
    to another are its own: `Any` here."""

    CONFIGS: dict[str, type[AnyConfig]]  # kind -> its config
    UNUSABLE: tuple[type[ValueError], ...]  # errors that mean that a source cannot be used; the others go on

    def find(self, kind: str, given: Given, config: Any) -> Found:
        """The sources of the folders, checked and sorted by name, and the whole config. No source is read.

        Raises SourceError, ConfigError, BuildError.
        """

    def share(self, inputs: Inputs) -> Any:
        """What is needed for every source beside the config; it goes to the workers. Shapes by class, for example."""

    def make(self, source: Any, shared: Any, config: Any) -> Made:
        """A source read, and all its sequences. Depends on the three arguments alone. Raises UNUSABLE."""

    def probe(self, source: Any, config: Any) -> None:
        """Read a source that could not be used before as far as it takes to know. Raises UNUSABLE."""

    def warm_up(self, config: Any) -> None:
        """Compile the kernels, or load them from the cache."""

    def is_cold(self) -> bool:
        """Whether a kernel would have to be compiled."""


def kind_of(name: str) -> Kind:
    """The module of a kind. Raises BuildError."""
    match name:
        case "moving":
            return importlib.import_module("gen4d.building.moving")
        case "frames" | "sweeps":
            return importlib.import_module("gen4d.building.frames")
        case "views":
            return importlib.import_module("gen4d.building.views")
        case "scans":  # without sequences; gen4d-train prepare makes them
            return importlib.import_module("gen4d.building.scans")
    raise BuildError(f"kind = {name!r}: one of {', '.join(BUILT)}")


def find_inputs(kind: str, given: Given, config: Any) -> Found:
    """The sources of the folders, for a config of the kind. Raises SourceError, ConfigError, BuildError."""
    return kind_of(kind).find(kind, given, config)
