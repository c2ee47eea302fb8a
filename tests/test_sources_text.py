"""One policy for all texts: marks, line ends, blanks, comments, padding, and records that go on over the next line."""

import json
import pathlib
import re

import numpy as np
import pytest

from gen4d.sources import Orientation, SourceError, find_scans, load_scan
from gen4d.sources.formats.meshes import read_mesh
from gen4d.sources.formats.points import read_points
from tests.makers.files import obj, off, pcd, ply, structured, write
from tests.makers.meshes import CUBE_QUADS, CUBE_TRIANGLES, CUBE_VERTEX
from tests.makers.rooms import room_points, scannet_scan

POINT = room_points(150)
LABEL = np.arange(150, dtype=np.uint16) % 41
XYZ = "".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in POINT.tolist()).encode()
TEXTS = {
    "triangles.off": off(CUBE_VERTEX, CUBE_TRIANGLES).encode(),
    "quads.off": off(CUBE_VERTEX, CUBE_QUADS).encode(),
    "coloured.off": off(np.column_stack([CUBE_VERTEX, np.full((8, 4), 9)]), CUBE_QUADS, "COFF\n").encode(),
    "cube.obj": obj(CUBE_VERTEX, CUBE_QUADS).encode(),
    "points.ply": ply(POINT, {"label": LABEL}, "ascii"),
    "faces.ply": ply(POINT, {"label": LABEL}, "ascii", [(0, 1, 2), (3, 4, 5, 6)], faces_first=True),
    "points.pcd": pcd(structured(POINT, label=LABEL), "ascii"),
    "points.xyz": XYZ,
}


def body_of(name: str, content: bytes) -> int:
    """Where the numbers begin."""
    ends = {".ply": rb"end_header\n", ".pcd": rb"DATA ascii\n", ".off": rb"OFF\n[^\n]*\n"}
    found = re.search(ends.get(name[-4:], rb"\A"), content)
    return found.end()


def in_body(change):
    return lambda name, content: content[: body_of(name, content)] + change(content[body_of(name, content) :])


def wrapped(body: bytes) -> bytes:
    """The last blank of every second line becomes a line end."""
    lines = body.splitlines()
    return b"\n".join(b"\n".join(line.rsplit(b" ", 1)) if i % 2 else line for i, line in enumerate(lines)) + b"\n"


SPELLINGS = {
    "byte order mark": lambda _, content: b"\xef\xbb\xbf" + content,
    "byte order mark and crlf": lambda _, content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    "blanks at the head": lambda _, content: b"\n \t\n" + content,
    "crlf": lambda _, content: content.replace(b"\n", b"\r\n"),
    "cr": lambda _, content: content.replace(b"\n", b"\r"),
    "lf, then crlf": in_body(lambda body: body.replace(b"\n", b"\r\n")),
    "crlf, then lf": lambda _, content: content.replace(b"\n", b"\r\n", 3),
    "every third line crlf": lambda _, content: b"".join(
        line + (b"\r\n" if i % 3 == 0 else b"\n") for i, line in enumerate(content.split(b"\n")[:-1])
    ),
    "trailing blanks": lambda _, content: content.replace(b"\n", b" \t\n"),
    "blank lines in the body": in_body(lambda body: body.replace(b"\n", b"\n \n\n")),
    "blank lines at the end": lambda _, content: content + b"\n\n \n",
    "no last line end": lambda _, content: content.rstrip(b"\n"),
    "zero bytes at the end": lambda _, content: content + b"\0\0\0",
    "ctrl-z at the end": lambda _, content: content + b"\r\n\x1a",
    "a comment before the body": in_body(lambda body: b"# 1 2 3\n" + body),
    "comments behind records": in_body(lambda body: body.replace(b"\n", b" # 7\n")),
}


def read(name, content):
    if name.endswith((".off", ".obj")):
        vertex, face, doubts = read_mesh(pathlib.Path(name), content, "z")
        return vertex, face, doubts
    return read_points(pathlib.Path(name), content)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", TEXTS)
def test_every_spelling_of_every_text_reads_as_the_plain_one(name, spelling):
    plain, other = read(name, TEXTS[name]), read(name, SPELLINGS[spelling](name, TEXTS[name]))
    for first, second in zip(plain, other, strict=True):
        assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in ("cube.obj", "coloured.off", "points.xyz")])
def test_a_record_may_go_on_over_the_next_line(name):
    plain, other = read(name, TEXTS[name]), read(name, in_body(wrapped)(name, TEXTS[name]))
    for first, second in zip(plain, other, strict=True):
        assert np.array_equal(first, second) if isinstance(first, np.ndarray) else first == second


@pytest.mark.parametrize("name", ["quads.off", "points.ply", "points.pcd"])
def test_a_number_moved_to_another_record_is_refused(name):
    """As many numbers as declared, but one line has one too few and the next one too many."""
    content = TEXTS[name]
    at = body_of(name, content)
    lines = content[at:].splitlines()
    short, moved = lines[2].rsplit(b" ", 1)
    lines[2], lines[3] = short, moved + b" " + lines[3]
    with pytest.raises(SourceError):
        read(name, content[:at] + b"\n".join(lines))


def test_a_number_too_many_in_the_last_record_is_refused():
    content = ply(POINT, None, "ascii", [(0, 1, 2)])
    at = content.rindex(b"\n3 0 1 2")
    with pytest.raises(SourceError, match="4 numbers in vertex line 149, where 3 are declared"):
        read("a.ply", content[:at] + b" 7" + content[at:])
    assert len(read("a.ply", content).point) == 150


def test_a_ply_of_no_vertices_has_none_whatever_their_columns():
    head = "ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nproperty float y\nproperty float z\n"
    for more in ("", "property list uchar int seen\n"):
        assert read("a.ply", f"{head}{more}end_header\n".encode()).point.shape == (0, 3)


@pytest.mark.parametrize("name", ["cube.obj", "points.xyz"])
def test_a_broken_line_is_refused_where_nothing_says_how_long_records_are(name):
    with pytest.raises(SourceError):
        read(name, wrapped(TEXTS[name]))


@pytest.mark.parametrize("name", TEXTS)
def test_text_in_utf_16_is_named(name):
    with pytest.raises(SourceError, match="UTF-16: save it as UTF-8"):
        read(name, TEXTS[name].decode().encode("utf-16"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_binary_data_that_begin_with_a_line_end_stay_whole(newline):
    """A header ended by CR alone, and LF as the first byte of the data."""
    point = POINT.copy()
    point[0, 0] = np.frombuffer(b"\n\n\n\x41", np.float32)[0]
    for content, name in ((ply(point, newline=newline), "a.ply"), (pcd(structured(point)), "a.pcd")):
        head, mark, data = content.partition(b"DATA binary\n")
        content = head.replace(b"\n", newline.encode()) + mark.replace(b"\n", newline.encode()) + data if mark else head
        assert np.array_equal(read(name, content).point, point)


def test_padding_behind_binary_data_is_nothing_and_numbers_are():
    for name, content in (("a.ply", ply(POINT)), ("a.pcd", pcd(structured(POINT)))):
        assert np.array_equal(read(name, content + b"\0\0\r\n\x1a").point, POINT)
        with pytest.raises(SourceError, match="counts are wrong"):
            read(name, content + b"\0\0\1\n")


@pytest.mark.parametrize("word", ["-nan(ind)", "1.#QNAN", "-1.#IND00", "NaN", "-nan"])
@pytest.mark.parametrize("name", ["points.ply", "points.pcd", "points.xyz"])
def test_rows_of_any_systems_nan_keep_their_place(name, word):
    content = TEXTS[name]
    first = repr(float(POINT[80, 0])).encode()
    line = b"\n" + b" ".join(repr(value).encode() for value in POINT[80].tolist())
    table = read(name, content.replace(line, line.replace(first, word.encode(), 1), 1))
    assert np.flatnonzero(np.isnan(table.point[:, 0])).tolist() == [80]


def test_marks_before_what_lies_beside_a_scan_shift_nothing(tmp_path):
    scannet_scan(tmp_path, "scene0000_00", labels="segments")
    plain = load_scan(find_scans(tmp_path).sources[0], Orientation())
    for path in (*(tmp_path / "scene0000_00").glob("*.[tj]*"), tmp_path / "scannetv2-labels.combined.tsv"):
        content = path.read_bytes()
        if path.suffix == ".tsv":  # so that the column that is looked for is the first one
            content = content.replace(b"id\traw_category", b"raw_category\tid", 1)
            content = re.sub(rb"(?m)^(\d)\t(\w+)", rb"\2\t\1", content)
        write(path, b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    marked = load_scan(find_scans(tmp_path).sources[0], Orientation())
    assert np.array_equal(marked.label, plain.label) and np.array_equal(marked.instance, plain.instance)
    assert np.array_equal(marked.axis_alignment, plain.axis_alignment) and plain.axis_alignment is not None
    assert json.loads((tmp_path / "scene0000_00" / "scene0000_00.aggregation.json").read_bytes().decode("utf-8-sig"))
