"""Views of shapes, against a straightforward script that does the same work: shapes from files of points, four frames
each. The script stores frames, the shards a cloud, poses and masks."""

import pathlib
import tempfile
import time

import numpy as np
from scipy.spatial.transform import Rotation

import gen4d

_SHAPES, _POINTS = 1000, 2048


def main() -> None:
    """Milliseconds and kilobytes a shape."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        point = _write(folder / "shapes")
        _build(folder / "warm", folder / "shapes", limit=2)
        seconds = _build(folder / "built", folder / "shapes")
        dataset = gen4d.open_dataset(folder / "built")
        size = dataset.manifest["totals"]["bytes"]
        slow, slow_bytes = _reference(folder / "reference", point)
        started = time.perf_counter()
        read = sum(len(sequence.frame(i).point) for sequence in dataset for i in range(4))
        reading = time.perf_counter() - started
    print(f"views: {_SHAPES} shapes of {_POINTS} points, 4 frames each")
    print(f"  build      {1000 * seconds / _SHAPES:6.2f} ms a shape, {size / _SHAPES / 1000:6.1f} KB")
    print(
        f"  reference  {1000 * slow / _SHAPES:6.2f} ms a shape, {slow_bytes / _SHAPES / 1000:6.1f} KB, frames as .npz"
    )
    print(f"  {slow / seconds:.1f} times as fast, {slow_bytes / size:.1f} times as small")
    print(f"  reading    {1000 * reading / _SHAPES:6.2f} ms a shape, {read} points")


def _write(folder: pathlib.Path) -> np.ndarray:
    folder.mkdir()
    rng = np.random.default_rng(0)
    face = rng.integers(0, 6, (_SHAPES, _POINTS))
    point = rng.uniform(-1, 1, (_SHAPES, _POINTS, 3))
    np.put_along_axis(point, (face % 3)[..., None], np.where(face < 3, -1.0, 1.0)[..., None], axis=2)
    point = (point * rng.uniform(0.3, 1, (_SHAPES, 1, 3))).astype(np.float32)
    np.savez(folder / "boxes.npz", point=point, label=np.arange(_SHAPES) % 40)
    return point


def _build(out: pathlib.Path, shapes: pathlib.Path, limit: int | None = None) -> float:
    started = time.perf_counter()
    gen4d.build_dataset(shapes=shapes, out=out, kind="views", limit=limit)
    return time.perf_counter() - started


def _reference(folder: pathlib.Path, point: np.ndarray) -> tuple[float, int]:
    """Seconds and bytes of a file of four frames for every shape, as loaders of published code want."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    for number, shape in enumerate(point):
        unit = shape - shape.mean(axis=0)
        frames = [unit / np.linalg.norm(unit, axis=1).max()]
        for _ in range(3):
            frames.append(_moved(frames[-1], rng))
        np.savez(folder / f"{number:05d}.npz", frame=np.stack(frames).astype(np.float32), label=number % 40)
    seconds = time.perf_counter() - started
    return seconds, sum(path.stat().st_size for path in folder.iterdir())


def _moved(point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eq. 2 on the points themselves."""
    middle = point.mean(axis=0)
    out = point - middle
    if rng.random() < 0.5:
        out = out @ Rotation.from_euler("xyz", rng.uniform(-15, 15, 3), degrees=True).as_matrix().T
    if rng.random() < 0.5:
        out = out * rng.uniform(0.8, 1.25)
    if rng.random() < 0.5:
        middle = middle + rng.uniform(-0.1, 0.1, 3) * (point.max(axis=0) - point.min(axis=0))
    return out + middle
