"""Mesh files: each oddity of the real data sets has a test and an outcome, and so has each kind of damage."""

import numpy as np
import pytest
import trimesh

from gen4d.sources import SourceError
from gen4d.sources.formats.meshes import read_mesh
from tests.makers.files import glb, glb_mesh, obj, off
from tests.makers.meshes import CUBE_QUADS, CUBE_TRIANGLES, CUBE_VERTEX
from tests.shared import SHARED, needs_shared_data

CUBE = off(CUBE_VERTEX, CUBE_TRIANGLES)
QUADS = off(CUBE_VERTEX, CUBE_QUADS)
PENTAGON = np.array([[np.cos(a), np.sin(a), 0] for a in 2 * np.pi * np.arange(5) / 5])


def read(tmp_path, name, content, up="auto"):
    """Vertices and triangles; what was doubted is another test's."""
    return read_mesh(tmp_path / name, content.encode() if isinstance(content, str) else content, up)[:2]


def area(vertex, face):
    a, b, c = (vertex[face[:, corner]] for corner in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()


CUBE_SPELLINGS = {
    "plain": CUBE,
    "header glued to its counts": off(CUBE_VERTEX, CUBE_TRIANGLES, "OFF"),
    "counts on the header's line": off(CUBE_VERTEX, CUBE_TRIANGLES, "OFF "),
    "crlf": off(CUBE_VERTEX, CUBE_TRIANGLES, newline="\r\n"),
    "glued crlf": off(CUBE_VERTEX, CUBE_TRIANGLES, "OFF", newline="\r\n"),
    "comments": CUBE.replace("OFF\n", "OFF # a cube\n# of side 1\n\n#\n").replace("0 0 1\n", "0 0 1 # odd\n"),
    "blank lines": CUBE.replace("\n", "\n\n  \n").lstrip(),
    "leading blanks": "\n \t\n" + CUBE.replace("\n", "\n\t "),
    "byte order mark": b"\xef\xbb\xbf" + CUBE.encode(),
    "no last newline": CUBE.rstrip(),
    "two counts": CUBE.replace("8 12 0", "8 12"),
    "quads": QUADS,
    "face colours": off(CUBE_VERTEX, CUBE_TRIANGLES, tail=" 255 0 0"),
    "face colours on quads": off(CUBE_VERTEX, CUBE_QUADS, tail=" 0.5 0.5 0.5 1.0"),
    "vertex colours": off(np.column_stack([CUBE_VERTEX, np.full((8, 4), 9)]), CUBE_TRIANGLES, "COFF\n"),
    "vertex normals": off(np.column_stack([CUBE_VERTEX, CUBE_VERTEX]), CUBE_QUADS, "NOFF\n"),
    "exponents": CUBE.replace("1 1 1\n", "1e0 +1.0E+00 1.\n"),
    "a face of two corners": CUBE.replace("8 12 0", "8 13 0") + "2 0 1\n",
    "a face listed twice": CUBE.replace("8 12 0", "8 13 0") + "3 0 1 3\n",
    "a face listed twice, turned": CUBE.replace("8 12 0", "8 13 0") + "3 3 0 1\n",
    "a face of zero area": CUBE.replace("8 12 0", "8 13 0") + "3 0 0 1\n",
}


@pytest.mark.parametrize("spelling", CUBE_SPELLINGS)
def test_off_oddities_all_give_the_same_cube(tmp_path, spelling):
    vertex, face = read(tmp_path, "cube.off", CUBE_SPELLINGS[spelling])
    assert np.array_equal(vertex, CUBE_VERTEX) and vertex.dtype == np.float64
    assert face.shape == (12, 3) and face.dtype == np.int32
    assert area(vertex, face) == pytest.approx(6)


def test_polygons_become_fans_of_their_area(tmp_path):
    vertex, face = read(tmp_path, "a.off", off(PENTAGON, [(0, 1, 2, 3, 4)]))
    assert len(face) == 3 and area(vertex, face) == pytest.approx(2.5 * np.sin(2 * np.pi / 5))


def test_collinear_triangles_are_dropped_despite_rounding(tmp_path):
    line = np.array([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.7, 0.7, 0.7]])
    vertex = np.concatenate([CUBE_VERTEX, line])
    assert len(read(tmp_path, "a.off", off(vertex, [*CUBE_TRIANGLES, (8, 9, 10)]))[1]) == 12


def off_with(old, new, text=CUBE):
    assert old in text
    return text.replace(old, new, 1)


OFF_DAMAGE = {
    "garbage": (bytes(range(256)) * 4, "starts with"),
    "another format": ("ply\nformat ascii 1.0\n", "instead of OFF"),
    "header alone": ("OFF\n", "has the counts"),
    "negative vertices": (off_with("8 12 0", "-8 12 0"), "counts"),
    "negative faces": (off_with("8 12 0", "8 -12 0"), "counts"),
    "words for counts": (off_with("8 12 0", "eight 12 0"), "counts"),
    "no vertices": ("OFF\n0 0 0\n", "needs a surface"),
    "no faces": (off(CUBE_VERTEX, []), "needs a surface"),
    "2e9 vertices": (off_with("8 12 0", "2000000000 12 0"), "declares 2000000000 vertices"),
    "2e9 faces": (off_with("8 12 0", "8 2000000000 0"), "2000000000 faces"),
    "one vertex more": (off_with("8 12 0", "9 12 0"), "lines after its counts"),
    "one vertex fewer": (off_with("8 12 0", "7 12 0"), "lines after its counts"),
    "one face more": (off_with("8 12 0", "8 13 0"), "lines after its counts"),
    "one face fewer": (off_with("8 12 0", "8 11 0"), "lines after its counts"),
    "a face cut off": (CUBE.rstrip()[:-2], "truncated"),
    "a coloured face cut off": (off(CUBE_VERTEX, CUBE_QUADS, tail=" 1").rstrip()[:-6], "lists 2: truncated"),
    "a short vertex": (off_with("0 0 1\n", "0 1\n"), "2 numbers in vertex 1"),
    "a word": (off_with("0 0 1\n", "0 zero 1\n"), "where a number belongs"),
    "nan": (off_with("0 0 1\n", "0 nan 1\n"), "1 of 8 vertices with NaN"),
    "inf": (off_with("0 0 1\n", "0 -inf 1\n"), "1 of 8 vertices with NaN or infinity"),
    "1e30": (off_with("0 0 1\n", "0 1e30 1\n"), "point at infinity"),
    "1e400": (off_with("0 0 1\n", "0 1e400 1\n"), "NaN or infinity"),
    "index too large": (off_with("3 0 1 3\n", "3 0 1 8\n"), "indices from 0 to 8 for 8 vertices"),
    "index negative": (off_with("3 0 1 3\n", "3 0 1 -3\n"), "indices from -3 to 7"),
    "index 1e300": (off_with("3 0 1 3\n", "3 0 1 1e300\n"), "not a whole number"),
    "index 0.5": (off_with("3 0 1 3\n", "3 0 1 0.5\n"), "not a whole number"),
    "corners negative": (off_with("3 0 1 3\n", "-3 0 1 3\n"), "corners"),
    "corners 1e9": (off_with("3 0 1 3\n", "999999999 0 1 3\n"), "corners"),
    "all of zero area": (off(np.zeros((3, 3)), [(0, 1, 2)]), "all of zero area"),
    "all on one line": (off(np.arange(9).reshape(3, 3), [(0, 1, 2)]), "all of zero area"),
    "all on one line but for rounding": (off(np.arange(9).reshape(3, 3) / 7, [(0, 1, 2)]), "all of zero area"),
    "binary": ("OFF BINARY\n\0\0\0\b", "not read here"),
    "four dimensions": ("4OFF\n1 1 0\n0 0 0 1\n", "not read here"),
}


@pytest.mark.parametrize("case", OFF_DAMAGE)
def test_damaged_off_is_refused_with_file_and_rule(tmp_path, case):
    content, words = OFF_DAMAGE[case]
    with pytest.raises(SourceError) as error:
        read(tmp_path, "cube.off", content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "cube.off"))


@pytest.mark.parametrize("text", [CUBE, QUADS, off(CUBE_VERTEX, CUBE_QUADS, tail=" 9 9 9")])
def test_off_that_lacks_any_of_its_lines_is_refused(tmp_path, text):
    lines = text.splitlines(keepends=True)
    for drop in range(1, len(lines)):
        with pytest.raises(SourceError):
            read(tmp_path, "a.off", "".join(lines[:drop] + lines[drop + 1 :]))


def test_obj_of_every_spelling_gives_the_cube_with_z_up(tmp_path):
    plain = obj(CUBE_VERTEX, CUBE_TRIANGLES)
    lines = plain.splitlines()
    relative = [
        "f " + " ".join(str(int(word) - 9) for word in line.split()[1:]) if line[0] == "f" else line for line in lines
    ]
    spellings = {
        "plain": plain,
        "quads": obj(CUBE_VERTEX, CUBE_QUADS),
        "crlf": plain.replace("\n", "\r\n"),
        "tabs": plain.replace(" ", "\t"),
        "texture and normal": plain.replace("f 1 2 4", "f 1/1/1 2/2 4//4"),
        "relative": "\n".join(relative),
        "continued": plain.replace("f 1 2 4", "f 1 \\\n2 4"),
        "other statements": "# cube\nmtllib none.mtl\no cube\nvt 0 0\nvn 0 0 1\ns off\n"
        + plain.replace("f", "g a\nf", 1),
        "comment behind a face": plain.replace("f 1 2 4", "f 1 2 4 # first"),
        "vertex colours": plain.replace("v 0 0 0", "v 0 0 0 1 1 1"),
    }
    for spelling, text in spellings.items():
        vertex, face = read(tmp_path, "a.obj", text)
        assert np.array_equal(vertex, CUBE_VERTEX[:, [0, 2, 1]] * [1, -1, 1]), spelling
        assert len(face) == 12 and area(vertex, face) == pytest.approx(6), spelling


def test_obj_that_mixes_vertices_and_relative_faces_keeps_its_corners(tmp_path):
    one = "v 0 0 0\nv 1 0 0\nv 0 0 1\nf -3 -2 -1\n"
    _, face = read(tmp_path, "a.obj", one + one.replace("v ", "v 1"))
    assert face.tolist() == [[0, 1, 2], [3, 4, 5]]


OBJ_DAMAGE = {
    "garbage": (bytes(range(256)) * 4, "needs a surface"),
    "empty of faces": ("v 0 0 0\n", "needs a surface"),
    "index 0": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("f 1 2 4", "f 0 2 4"), "no face on line 9"),
    "index too large": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("f 1 2 4", "f 1 2 77"), "indices from 0 to 76"),
    "index too far back": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("f 1 2 4", "f -1 -2 -9"), "no face on line 9"),
    "a face cut off": (obj(CUBE_VERTEX, CUBE_TRIANGLES).rstrip()[:-2], "no face on line 20"),
    "a short vertex": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("v 0 0 1\n", "v 0 1\n"), "vertex on line 2"),
    "words": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("f 1 2 4", "f a b c"), "no face on line 9"),
    "nan": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("v 0 0 1\n", "v 0 nan 1\n"), "NaN"),
    "a word": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("v 0 0 1\n", "v 0 x 1\n"), "where a number belongs"),
    "index 1e30": (obj(CUBE_VERTEX, CUBE_TRIANGLES).replace("f 1 2 4", f"f 1 2 {10**30}"), "no face on line 9"),
}


@pytest.mark.parametrize("case", OBJ_DAMAGE)
def test_damaged_obj_is_refused_with_file_and_rule(tmp_path, case):
    content, words = OBJ_DAMAGE[case]
    with pytest.raises(SourceError) as error:
        read(tmp_path, "cube.obj", content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "cube.obj"))


def test_glb_scene_applies_every_node_and_turns_y_up_to_z_up(tmp_path):
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES, [{"mesh": 0}, {"mesh": 0, "translation": [0, 5, 0]}])
    vertex, face = read(tmp_path, "a.glb", glb(tree, binary))
    assert len(face) == 24 and area(vertex, face) == pytest.approx(12)
    assert vertex.min(axis=0).tolist() == [0, -1, 0] and vertex.max(axis=0).tolist() == [1, 0, 6]


def test_glb_node_under_a_scaled_node_is_scaled(tmp_path):
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES, [{"scale": [2, 2, 2], "children": [1]}, {"mesh": 0}])
    tree["scenes"][0]["nodes"] = [0]
    assert area(*read(tmp_path, "a.glb", glb(tree, binary))) == pytest.approx(24)


def glb_with(change):
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES)
    return glb(change(tree) or tree, binary)


def draco(tree):
    tree["extensionsUsed"] = tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    tree["meshes"][0]["primitives"][0]["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}
    }
    for accessor in tree["accessors"]:
        del accessor["bufferView"]


GLB = glb(*glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES))
GLB_DAMAGE = {
    "garbage": (bytes(range(256)) * 4, "starts with"),
    "cut in the header": (GLB[:15], "starts with"),
    "cut in the tree": (GLB[:200], "truncated"),
    "cut in the data": (GLB[:-20], "truncated"),
    "version 1": (GLB[:4] + b"\1" + GLB[5:], "glTF 2.0"),
    "no json": (GLB.replace(b'"asset":', b'"asset"!'), "JSON part"),
    "json list": (glb([1], b""), "not an object"),
    "draco": (glb_with(draco), "KHR_draco_mesh_compression"),
    "draco not declared": (glb_with(lambda tree: [draco(tree), tree.pop("extensionsRequired")] and None), "accessor 0"),
    "meshopt": (glb_with(lambda tree: tree.update(extensionsRequired=["EXT_meshopt_compression"])), "meshopt"),
    "other file": (glb_with(lambda tree: tree["buffers"][0].update(uri="/etc/passwd")), "outside its binary part"),
    "2e9 vertices": (glb_with(lambda tree: tree["accessors"][0].update(count=2 * 10**9)), "2000000000 items"),
    "negative offset": (glb_with(lambda tree: tree["accessors"][0].update(byteOffset=-12)), "accessor 0"),
    "no accessor": (glb_with(lambda tree: tree["accessors"].clear()), "damaged"),
    "no meshes": (glb_with(lambda tree: tree.update(meshes=[], nodes=[], scenes=[])), ""),
    "index too large": (glb(*glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES + 5)), ""),
    "nan": (glb(*glb_mesh(np.where(CUBE_VERTEX == 1, 7, CUBE_VERTEX), CUBE_TRIANGLES)).replace(
        np.float32(7).tobytes(), np.float32(np.nan).tobytes()), "NaN"),
    "all zeros": (glb(*glb_mesh(np.zeros((8, 3)), CUBE_TRIANGLES)), "all of zero area"),
    "a node that is its own child": (glb_with(lambda tree: tree["nodes"][0].update(children=[0])), "two parents"),
    "a mesh shown a million times": (
        glb(*glb_mesh(CUBE_VERTEX, np.tile(CUBE_TRIANGLES, (100, 1)), [{"mesh": 0} for _ in range(5000)])),
        "repeats its meshes"),
}  # fmt: skip


@pytest.mark.parametrize("case", GLB_DAMAGE)
def test_damaged_glb_is_refused_with_file_and_rule(tmp_path, case):
    content, words = GLB_DAMAGE[case]
    with pytest.raises(SourceError) as error:
        read(tmp_path, "cube.glb", content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "cube.glb"))


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z", "0,3,4"])
def test_any_axis_turns_to_z_without_mirroring(tmp_path, up):
    tall = CUBE_VERTEX * [1, 2, 3]
    axis = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "0,3,4": (0, 0.6, 0.8)}[up.strip("-")]
    vertex, _ = read(tmp_path, "a.off", off(tall, CUBE_TRIANGLES), up)
    sign = -1 if up.startswith("-") else 1
    assert np.allclose(vertex[:, 2], tall @ np.array(axis) * sign, atol=1e-12)
    turn = np.linalg.lstsq(tall, vertex, rcond=None)[0]
    assert np.linalg.det(turn) == pytest.approx(1)


@needs_shared_data
def test_real_off_files_equal_what_trimesh_reads_from_them():
    for path in sorted((SHARED / "furniture8").glob("*/*/*_000[1-3].off")):
        vertex, face = read_mesh(path, path.read_bytes(), "auto")[:2]
        mesh = trimesh.load(path, process=False)
        assert np.array_equal(vertex, mesh.vertices)
        assert area(vertex, face) <= mesh.area * (1 + 1e-9)  # faces listed twice count once
        assert {tuple(sorted(row)) for row in face.tolist()} <= {tuple(sorted(row)) for row in mesh.faces.tolist()}


@needs_shared_data
def test_off_quirks_of_trimesh_are_read():
    for path in sorted((SHARED / "off_quirks_trimesh_mit").glob("*.off")):
        vertex, face = read_mesh(path, path.read_bytes(), "auto")[:2]
        assert len(vertex) == 8 and len(face) == 12, path
        assert area(vertex, face) == pytest.approx(24 * 1.154701**2 / 1, rel=1e-3), path


@needs_shared_data
def test_real_obj_files_have_the_area_that_trimesh_finds():
    paths = sorted((SHARED / "furniture_blueprint3d_mit").glob("*.obj"))
    assert len(paths) == 24
    for path in paths:
        vertex, face = read_mesh(path, path.read_bytes(), "auto")[:2]
        mesh = trimesh.load(path, process=False, force="mesh", skip_materials=True)
        assert np.allclose(np.ptp(vertex, axis=0), mesh.extents[[0, 2, 1]]), path
        assert area(vertex, face) <= mesh.area * (1 + 1e-6), path
