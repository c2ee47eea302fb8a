"""Points files by suffix."""

from pathlib import Path

from gen4d.sources.files import SourceError
from gen4d.sources.pcd import read_pcd
from gen4d.sources.ply import read_ply
from gen4d.sources.table import PointTable

_READERS = {".ply": read_ply, ".pcd": read_pcd}


def read_points(path: Path, content: bytes) -> PointTable:
    """The points in `content`, the bytes of the file at `path`. Raises SourceError for whatever is wrong with them."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(path, f"has a suffix that no reader knows: one of {', '.join(sorted(_READERS))}")
    return reader(path, content)
