"""What tests compare: files of folders, and clouds and sequences bit for bit."""

import pathlib


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name, but for the lock's."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "build.lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_same_cloud(one, other) -> None:
    """Clouds are equal bit for bit."""
    for name in one.columns:
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        assert a is None or (a.tobytes() == b.tobytes() and a.dtype == b.dtype), name


def assert_same_sequence(one, other) -> None:
    """Sequences are equal in all that a reader gives, bit for bit."""
    assert (one.id, one.kind, one.attempt) == (other.id, other.kind, other.attempt)
    assert repr(one.movers) == repr(other.movers)  # in which NaN equals NaN
    for a, b in zip(one.actors, other.actors, strict=True):
        assert_same_cloud(a.cloud, b.cloud)
        assert (a.role, a.mover) == (b.role, b.mover) and a.pose.tobytes() == b.pose.tobytes()
        assert a.planes.tobytes() == b.planes.tobytes() and a.planes.shape == b.planes.shape
