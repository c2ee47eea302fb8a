"""Damaged files by the thousand: readers return sound arrays or raise SourceError, quickly, and nothing else.

Mutations are drawn from generators keyed by (format, case), so that a failing case is found again by its number.
`python -m tests.test_sources_fuzz 1000000` reads a million of them under a memory limit and an alarm.
"""

import io
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gen4d.sources import SourceError
from gen4d.sources.annotations import read_alignment, read_annotations
from gen4d.sources.formats.columns import PointColumns
from gen4d.sources.formats.meshes import read_mesh
from gen4d.sources.formats.ply import ply_faces
from gen4d.sources.formats.points import read_points
from tests.makers.files import glb, glb_mesh, obj, off, pcd, ply, structured
from tests.makers.meshes import CUBE_QUADS, CUBE_TRIANGLES, CUBE_VERTEX
from tests.makers.rooms import room_points, scannet_scan

ROOT = Path(__file__).resolve().parents[1]
CASES = 300  # of each seed file
SLOW_S = 1.0
POINT = room_points(60)
NUMBERS = [
    "-1",
    "0",
    "1",
    "3",
    "7",
    "59",
    "61",
    "4294967295",
    "2000000000",
    "99999999999999999999",
    "nan",
    "1e999",
    "x",
]
EXTREMES = [0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1]


def arrays(kind):
    out = io.BytesIO()
    if kind == "npy":
        np.save(out, POINT)
    else:
        np.savez_compressed(out, points=POINT, label=np.arange(60), instance=np.zeros(60, np.int16))
    return out.getvalue()


ROWS = structured(POINT, label=np.arange(60, dtype=np.uint16))
FACES = [(0, 1, 2), (3, 4, 5, 6)]
MARK = b"\xef\xbb\xbf"
STAR = np.array([(0, 0), (4, 0), (4, 4), (2, 1), (0, 4)], float)
XYZ = "".join(f"{x:.4f} {y:.4f} {z:.4f} {row}\n" for row, (x, y, z) in enumerate(POINT.tolist()))
LISTS = ply(POINT[:0]).replace(b"vertex 0", b"vertex 20").replace(b" z\n", b" z\nproperty list uchar short seen\n")
LISTS += b"".join(POINT[row].tobytes() + bytes([row % 3]) + b"\1\0" * (row % 3) for row in range(20))
SEEDS = {
    "ascii.ply": ply(POINT, {"label": np.arange(60, dtype=np.uint8)}, "ascii", FACES),
    "little.ply": ply(POINT, {"label": np.arange(60, dtype=np.uint8)}, faces=FACES),
    "big_faces_first.ply": ply(POINT.astype("f8"), None, "binary_big_endian", FACES, "i4", faces_first=True),
    "triangles.ply": ply(POINT, None, faces=FACES[:1] * 20),
    "ascii.pcd": pcd(ROWS, "ascii"),
    "binary.pcd": pcd(ROWS, "binary", height=2),
    "compressed.pcd": pcd(ROWS, "binary_compressed"),
    "points.npy": arrays("npy"),
    "points.npz": arrays("npz"),
    "triangles.off": off(CUBE_VERTEX, CUBE_TRIANGLES, "OFF").encode(),
    "quads.off": off(CUBE_VERTEX, CUBE_QUADS, "# made by hand\nCOFF\n", tail=" 1 1 1").encode(),
    "lists.ply": LISTS,
    "crlf.ply": MARK + ply(POINT, {"scalar_label": np.arange(60.0)}, "ascii", FACES).replace(b"\n", b"\r\n"),
    "nan.pcd": MARK + pcd(ROWS, "ascii").replace(b"\n4.0 ", b"\n-nan(ind) ").replace(b"VIEW", b"KEY 1\nVIEW"),
    "points.xyz": XYZ.encode(),
    "names.csv": ("x,y,z,label\n" + XYZ.replace(" ", ",")).encode(),
    "count.pts": ("60\r\n" + XYZ.replace("\n", "\r\n")).encode(),
    "star.off": off(np.column_stack([STAR, STAR[:, 0]]), [(0, 1, 2, 3, 4), (0, 2, 1, 3)], "OFF ").encode(),
    "cube.obj": obj(CUBE_VERTEX, CUBE_QUADS).encode(),
    "cube.glb": glb(*glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES)),
}


def mutate(rng, content):
    """One to four damages of a file: flips, cuts, repeats, swaps, numbers of text and binary made extreme."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        if not data:
            break
        at = int(rng.integers(len(data)))
        end = min(len(data), at + int(rng.integers(1, 40)))
        match rng.integers(9):
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                del data[at:]
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end] * int(rng.integers(1, 4))
            case 4:
                data[at:end] = rng.bytes(end - at)
            case 5:
                data[at:end] = bytes(end - at)
            case 6:
                data[at : at + 4] = EXTREMES[rng.integers(len(EXTREMES))].to_bytes(4, "little")
            case 7:
                change_number(rng, data)
            case 8:
                words = data.split(b"\n")
                first, second = rng.integers(len(words), size=2)
                words[first], words[second] = words[second], words[first]
                data = bytearray(b"\n".join(words))
    return bytes(data)


def change_number(rng, data):
    """Put another number where the text has one, more often in the first 200 bytes, where headers are."""
    start = int(rng.integers(min(len(data), 200 if rng.integers(2) else len(data))))
    while start < len(data) and not 48 <= data[start] < 58:
        start += 1
    end = start
    while end < len(data) and 48 <= data[end] < 58:
        end += 1
    data[start:end] = NUMBERS[rng.integers(len(NUMBERS))].encode()


def read_any(path, content):
    if path.suffix in (".off", ".obj", ".glb"):
        return check_mesh(*read_mesh(path, content, "auto")[:2])
    if path.suffix == ".ply":
        assert all(rows.dtype == np.int64 and rows.shape[1] == n for n, rows in ply_faces(path, content).items())
    return check_table(read_points(path, content))


def check_mesh(vertex, face):
    assert vertex.dtype == np.float64 and vertex.ndim == 2 and vertex.shape[1] == 3 and np.isfinite(vertex).all()
    assert face.dtype == np.int32 and face.shape[1:] == (3,) and 0 <= face.min() and face.max() < len(vertex)


def check_table(table):
    assert table.point.dtype in (np.float32, np.float64) and table.point.shape == (len(table.point), 3)
    for column in (table.label, table.instance):
        assert column is None or (column.shape == (len(table.point),) and column.dtype == np.int32)


@pytest.mark.parametrize("name", SEEDS)
def test_the_undamaged_file_is_read(name):
    read_any(Path(name), SEEDS[name])


def read_damaged(name, case):
    """Read one damaged file. Returns whether it was read; passes on all but SourceError, with the case noted."""
    content = mutate(np.random.default_rng([*name.encode(), case]), SEEDS[name])
    start = time.process_time()
    try:
        read_any(Path(name), content)
        refused = ""
    except SourceError as error:
        refused = str(error)
    except BaseException as error:
        error.add_note(f"case {case} of {name}: {content[:300]!r}")
        raise
    assert time.process_time() - start < SLOW_S, (name, case)
    assert not refused or (refused.startswith(name) and refused.isprintable()), (name, case, refused)
    return not refused


@pytest.mark.parametrize("name", SEEDS)
def test_damaged_files_raise_source_error_or_read_as_sound_arrays(name):
    read_any(Path(name), SEEDS[name])  # what is imported and compiled once is not timed
    read = sum(read_damaged(name, case) for case in range(CASES))
    assert 0 < read < 0.9 * CASES


def test_damaged_files_never_crash_hang_or_take_memory():
    """In a child that may take 64 MiB more than it has after start-up, and is killed when it stops making progress."""
    command = [sys.executable, "-m", "tests.test_sources_fuzz", "5000"]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert child.returncode == 0, child.stderr[-2000:]
    read, refused = map(int, child.stdout.split())
    assert read + refused == 5000 and refused > 1000


def main(cases: int) -> None:
    """Read that many damaged files under the limits. Prints how many were read and refused."""
    names = list(SEEDS)
    for name in names:
        read_any(Path(name), SEEDS[name])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 64 * 2**20 + 20 * max(map(len, SEEDS.values()))
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    read = 0
    for case in range(cases):
        signal.alarm(5)
        read += read_damaged(names[case % len(names)], case)
    print(read, cases - read)


def test_damaged_files_beside_a_scan_raise_source_error_or_are_read(tmp_path):
    point = scannet_scan(tmp_path, "scene0000_00", count=120, labels="segments")
    base = "scene0000_00/scene0000_00"
    names = {
        "points": f"{base}_vh_clean_2.ply",
        "segments": f"{base}_vh_clean_2.0.010000.segs.json",
        "aggregation": f"{base}.aggregation.json",
        "alignment": f"{base}.txt",
        "label_table": "scannetv2-labels.combined.tsv",
    }
    refused = 0
    for role in ("segments", "aggregation", "alignment", "label_table"):
        path = tmp_path / names[role]
        sound = path.read_bytes()
        for case in range(CASES // 2):
            path.write_bytes(mutate(np.random.default_rng([*role.encode(), case]), sound))
            try:
                label, instance, doubts = read_annotations(tmp_path, names, PointColumns(point), [])
                assert doubts or label.shape == instance.shape == (120,)
                matrix = read_alignment(tmp_path, names, [])
                assert matrix is None or matrix.shape == (4, 4)
            except SourceError:
                refused += 1
        path.write_bytes(sound)
    assert refused > CASES // 2


if __name__ == "__main__":
    main(int(sys.argv[1]))
