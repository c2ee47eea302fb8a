"""Where the real sample data lie: beside the checkout, or nowhere, and then the tests that need them are skipped."""

import os
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PLACES = [
    pathlib.Path(os.environ["GEN4D_TEST_DATA"]) if "GEN4D_TEST_DATA" in os.environ else None,
    _ROOT.parent / "shared" / "data",
]

SHARED = next((place for place in _PLACES if place is not None and place.is_dir()), None)
needs_shared_data = pytest.mark.skipif(
    SHARED is None, reason="real sample data are not here: set GEN4D_TEST_DATA to their folder"
)
