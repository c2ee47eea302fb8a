"""Faces of any number of corners, primitives of any mode, and triangles that strayed from their shape."""

import io

import numpy as np
import pytest
import trimesh

from gen4d.moving.shape import make_model
from gen4d.sources import MeshSource, SourceError, load_shape
from gen4d.sources.formats.meshes import Triangles, read_mesh
from gen4d.sources.formats.ply import ply_faces
from gen4d.sources.surface import read_surface
from tests.makers.files import glb, glb_mesh, obj, off, ply
from tests.makers.meshes import CUBE_QUADS, CUBE_TRIANGLES, CUBE_VERTEX, chair
from tests.shared import SHARED, needs_shared_data

HORSESHOE = np.array([(0, 0), (3, 0), (3, 4), (2, 4), (2, 1), (1, 1), (1, 4), (0, 4)], float)  # area 9
COMB = np.array([(0, 0), (7, 0), (7, 3), (6, 3), (6, 1), (5, 1), (5, 3), (4, 3), (4, 1), (3, 1), (3, 3), (0, 3)], float)
ARROW = np.array([(0, 0), (2, 1), (0, 2), (0.5, 1)], float)  # area 1.5
SPIRAL = [(0, 0), (5, 0), (5, 5), (1, 5), (1, 2), (3, 2), (3, 3), (2, 3), (2, 4), (4, 4), (4, 1), (0, 1)]
SPIRAL = np.array(SPIRAL, float)
FRAME = np.array([(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)], float)  # a hole
FACES = {"horseshoe": HORSESHOE, "comb": COMB, "arrow": ARROW, "spiral": SPIRAL, "frame": FRAME}


def polygon_area(flat):
    x, y = flat.T
    return 0.5 * abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))


def in_space(flat, tilt=0.3):
    cos, sin = np.cos(tilt), np.sin(tilt)
    return np.column_stack([flat, np.zeros(len(flat))]) @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])


def area(mesh):
    a, b, c = (mesh.vertex[mesh.face[:, corner]] for corner in range(3))
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()


def in_each_format(vertex, faces):
    yield "a.off", off(vertex, faces, digits=17).encode()
    yield "b.off", off(vertex, faces, digits=17, tail=" 1 0 0").encode()
    yield "a.obj", obj(vertex, faces).encode()


def read(tmp_path, name, content):
    return read_mesh(tmp_path / name, content, "z")


@pytest.mark.parametrize("first", range(0, 10, 3))
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("shape", FACES)
def test_concave_faces_keep_their_area_from_whichever_corner(tmp_path, shape, mirrored, first):
    flat = np.roll(FACES[shape], -first, axis=0)
    vertex = in_space(flat[::-1] if mirrored else flat)
    for name, content in in_each_format(vertex, [tuple(range(len(flat)))]):
        mesh = read(tmp_path, name, content)
        assert area(mesh) == pytest.approx(polygon_area(flat), rel=1e-6) and not mesh.doubts
        normal = np.cross(*(mesh.vertex[mesh.face[:, k]] - mesh.vertex[mesh.face[:, 0]] for k in (1, 2)))
        assert (normal @ normal[0] > 0).all()  # none is turned over


def test_any_simple_face_keeps_its_area(tmp_path):
    rng = np.random.default_rng(7)
    for case in range(60):
        corners = int(rng.integers(4, 30))
        angle = np.sort(rng.random(corners)) * 2 * np.pi
        if np.diff(np.append(angle, angle[0] + 2 * np.pi)).max() > 3:
            continue  # around the origin or not simple
        flat = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(0.1, 1, (corners, 1))
        mesh = read(tmp_path, "a.off", off(in_space(flat, case), [tuple(range(corners))], digits=17).encode())
        assert area(mesh) == pytest.approx(polygon_area(flat), rel=1e-5) and not mesh.doubts, case


def test_convex_faces_are_cut_around_their_first_corner(tmp_path):
    angle = np.arange(7) * 2 * np.pi / 7
    flat = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for name, content in in_each_format(in_space(flat), [tuple(range(7))]):
        assert read(tmp_path, name, content).face.tolist() == [[0, k, k + 1] for k in range(1, 6)]


BOWS = {"even": [(0, 0), (1, 1), (1, 0), (0, 1)], "odd": [(0, 0), (3, 3), (3, 0), (0, 1)]}


@pytest.mark.parametrize("flat", BOWS.values(), ids=BOWS)
def test_a_face_that_crosses_itself_is_a_doubt_and_the_others_stay(tmp_path, flat):
    vertex = np.concatenate([CUBE_VERTEX, np.column_stack([flat, np.full(4, 0.5)])])
    for name, content in in_each_format(vertex, [*CUBE_QUADS, (8, 9, 10, 11)]):
        mesh = read(tmp_path, name, content)
        assert mesh.doubts == ("has 1 faces of 7 that cross themselves: their area is a guess",)
        assert len(mesh.face) >= 12


ODD_FACES = {
    "two corners": (0, 1),
    "one corner": (0,),
    "a corner twice": (0, 1, 1),
    "one corner three times": (2, 2, 2),
    "there and back": (0, 1, 0),
    "all on a line": (0, 8, 1),
    "a quad that is a line": (0, 8, 1, 8),
    "the last corner again": (0, 1, 3, 2, 0),
    "a corner on an edge": (0, 8, 1, 3, 2),
}


@pytest.mark.parametrize("odd", ODD_FACES)
def test_faces_that_are_lines_or_repeat_corners_change_no_area(tmp_path, odd):
    vertex = np.concatenate([CUBE_VERTEX, [[0, 0, 0.5]]])
    faces = [face for face in CUBE_QUADS if set(face) != {0, 1, 2, 3}] if len(ODD_FACES[odd]) > 4 else CUBE_QUADS
    for name, content in in_each_format(vertex, [ODD_FACES[odd], *faces]):
        mesh = read(tmp_path, name, content)
        assert area(mesh) == pytest.approx(6) and not mesh.doubts


ORDERS = ["ascii", "binary_little_endian", "binary_big_endian"]
MIXED = [(0, 1, 2), (3, 4, 5, 6), (1, 2, 3), (7, 6, 5, 4, 3), (2, 1, 0)]


@pytest.mark.parametrize("count_type", ["u1", "i4"])
@pytest.mark.parametrize("faces_first", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_ply_faces_come_back_by_their_number_of_corners(tmp_path, order, faces_first, count_type):
    for faces in (MIXED, MIXED[:1] * 4, CUBE_QUADS, []):
        content = ply(CUBE_VERTEX, None, order, faces, count_type, faces_first=faces_first)
        found = ply_faces(tmp_path / "a.ply", content)
        expected = {n: [list(face) for face in faces if len(face) == n] for n in {len(face) for face in faces}}
        assert {n: rows.tolist() for n, rows in found.items()} == expected
    assert ply_faces(tmp_path / "a.ply", ply(CUBE_VERTEX, None, order)) == {}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("faces", [MIXED, MIXED[:1] * 4], ids=["mixed", "even"])
def test_ply_faces_with_other_properties_around_their_corners_come_back(tmp_path, order, faces):
    text = order == "ascii"
    head = ply(CUBE_VERTEX.astype("f4"), None, order, []).replace(b"face 0", b"face %d" % len(faces))
    names = b"property uchar flags\nproperty list uchar int vertex_index\nproperty list uchar float texcoord\n"
    head = head.replace(b"property list uchar int vertex_indices\n", names)
    sign = ">" if "big" in order else "<"
    for face in faces:
        if text:
            head += f"9 {len(face)} {' '.join(map(str, face))} 2 0.5 0.5\n".encode()
        else:
            head += bytes([9, len(face)]) + np.array(face, sign + "i4").tobytes() + b"\2" + bytes(8)
    found = ply_faces(tmp_path / "a.ply", head)
    assert sorted(map(tuple, (row for rows in found.values() for row in rows.tolist()))) == sorted(faces)


def test_a_concave_face_of_a_ply_covers_its_own_area(tmp_path):
    content = ply(in_space(HORSESHOE), None, faces=[tuple(range(8))])
    vertex, face = read_surface(tmp_path / "a.ply", content)
    assert area(Triangles(vertex, face, ())) == pytest.approx(9)


def primitives(*items):
    """A GLB of one cube whose mesh has these primitives, each a mode and its indices, or None for all in order."""
    tree, binary = glb_mesh(CUBE_VERTEX, np.zeros((0, 3)))
    tree["accessors"], view = tree["accessors"][:1], tree["bufferViews"][1]
    tree["meshes"][0]["primitives"] = []
    for mode, index in items:
        primitive = {"attributes": {"POSITION": 0}} | ({} if mode is None else {"mode": mode})
        if index is not None:
            data = np.array(index, "<u2").tobytes()
            accessor = {"bufferView": 1, "byteOffset": len(binary) - view["byteOffset"], "componentType": 5123}
            tree["accessors"].append(accessor | {"count": len(index), "type": "SCALAR"})
            primitive["indices"] = len(tree["accessors"]) - 1
            binary += data
        tree["meshes"][0]["primitives"].append(primitive)
    view["byteLength"] = len(binary) - view["byteOffset"]
    tree["buffers"][0]["byteLength"] = len(binary)
    return tree, binary


ALL_TRIANGLES = (4, CUBE_TRIANGLES.ravel().tolist())
STRIPS = [(5, [q[0], q[1], q[3], q[2]]) for q in CUBE_QUADS]
MODES = {
    "triangles": [ALL_TRIANGLES],
    "no mode": [(None, ALL_TRIANGLES[1])],
    "fans": [(6, quad) for quad in CUBE_QUADS],
    "strips": STRIPS,
    "mixed": [*STRIPS[:3], *((6, quad) for quad in CUBE_QUADS[3:])],
    "lines and points beside": [(0, [0, 1]), (1, [0, 1, 2, 3]), (2, [0, 1, 2]), (3, [4, 5, 6]), ALL_TRIANGLES],
    "two indices left over": [(4, [*ALL_TRIANGLES[1], 0, 1])],
    "a strip of two": [(5, [0, 1]), (6, [0]), (6, []), ALL_TRIANGLES],
}


def facing(vertex, face):
    """1 for triangles (F, 3) that face away from the middle of the cube, -1 for others."""
    corner = vertex[face]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    return np.sign((normal * (corner.mean(axis=1) - 0.5)).sum(axis=1)).tolist()


@pytest.mark.parametrize("name", MODES)
def test_glb_primitives_of_every_mode_give_the_cube_facing_out(tmp_path, name):
    mesh = read(tmp_path, "a.glb", glb(*primitives(*MODES[name])))
    assert len(mesh.face) == 12 and area(mesh) == pytest.approx(6)
    assert sorted(facing(mesh.vertex, mesh.face)) == sorted(facing(CUBE_VERTEX, CUBE_TRIANGLES))


def test_glb_without_indices_takes_vertices_in_order(tmp_path):
    tree, binary = glb_mesh(CUBE_VERTEX[CUBE_TRIANGLES.ravel()], np.zeros((0, 3)))
    del tree["meshes"][0]["primitives"][0]["indices"]
    assert area(read(tmp_path, "a.glb", glb(tree, binary))) == pytest.approx(6)


@pytest.mark.parametrize(
    "items, words",
    [([(0, [0, 1])], "no triangles, but points"), ([(1, [0, 1]), (3, [0, 1])], "but a line and lines"),
     ([(7, [0, 1, 2])], "a primitive of mode 7: 0 to 6 are known")],
)  # fmt: skip
def test_glb_without_a_surface_names_what_is_there(tmp_path, items, words):
    with pytest.raises(SourceError, match=words):
        read(tmp_path, "a.glb", glb(*primitives(*items)))


def test_glb_without_scenes_shows_all_roots_and_with_several_the_one_to_show(tmp_path):
    nodes = [{"children": [1]}, {"mesh": 0}, {"mesh": 0, "translation": [0, 0, 5]}]
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES, nodes)
    for roots in ({}, {"scenes": []}):
        bare = {key: value for key, value in tree.items() if key not in ("scene", "scenes")} | roots
        assert len(read(tmp_path, "a.glb", glb(bare, binary)).face) == 24
    tree["scenes"] = [{"nodes": [0]}, {"nodes": [2]}]
    tree["scene"] = 1
    assert read(tmp_path, "a.glb", glb(tree, binary)).vertex[:, 2].max() == 6
    del tree["scene"]
    assert read(tmp_path, "a.glb", glb(tree, binary)).vertex[:, 2].max() == 1


def test_glb_primitives_without_positions_are_passed_over_and_named_if_there_is_nothing_else(tmp_path):
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES)
    tree["meshes"][0]["primitives"].append({"attributes": {}})
    assert area(read(tmp_path, "a.glb", glb(tree, binary))) == pytest.approx(6)
    tree["meshes"][0]["primitives"] = [{"attributes": {"NORMAL": 0}}]
    with pytest.raises(SourceError, match="no triangles, but primitives without POSITION"):
        read(tmp_path, "a.glb", glb(tree, binary))


@pytest.mark.parametrize("name", ["KHR_mesh_quantization", "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing"])
def test_glb_extensions_that_are_required_are_named(tmp_path, name):
    tree, binary = glb_mesh(CUBE_VERTEX, CUBE_TRIANGLES)
    with pytest.raises(SourceError, match=f"by {name}, not read here"):
        read(tmp_path, "a.glb", glb(tree | {"extensionsRequired": [name]}, binary))
    assert len(read(tmp_path, "a.glb", glb(tree | {"extensionsRequired": ["KHR_materials_unlit"]}, binary)).face) == 12


def random_scene(rng):
    nodes, roots = [], []
    for number in range(int(rng.integers(1, 6))):
        node = {"mesh": 0} if rng.random() < 0.8 or not number else {}
        match rng.integers(3):
            case 1:
                turn = rng.normal(size=4)
                node |= {"rotation": (turn / np.linalg.norm(turn)).tolist(), "scale": rng.uniform(-2, 2, 3).tolist()}
                node["translation"] = rng.normal(size=3).tolist()
            case 2:
                node["matrix"] = np.vstack([rng.normal(size=(3, 4)), [0, 0, 0, 1]]).T.ravel().tolist()
        parent = int(rng.integers(-1, number)) if number else -1
        (roots if parent < 0 else nodes[parent].setdefault("children", [])).append(number)
        nodes.append(node)
    tree, binary = glb_mesh(rng.normal(size=(8, 3)), CUBE_TRIANGLES, nodes)
    tree["scenes"][0]["nodes"] = roots
    return glb(tree, binary)


def test_glb_scenes_of_any_nodes_equal_what_trimesh_reads(tmp_path):
    for case in range(25):
        content = random_scene(np.random.default_rng(case))
        scene = trimesh.load(io.BytesIO(content), file_type="glb", force="scene", process=False)
        expected = np.concatenate([mesh.triangles for mesh in scene.dump()])
        mesh = read(tmp_path, "a.glb", content)
        assert np.allclose(mesh.vertex[mesh.face], expected, atol=1e-9), case


def with_strays(vertex, face, *corners):
    """A mesh and far triangles, each of the three corners that are given."""
    extra = np.array(corners, float).reshape(-1, 3)
    rows = len(vertex) + np.arange(len(extra)).reshape(-1, 3)
    return np.concatenate([vertex, extra]), np.concatenate([np.asarray(face), rows])


CHAIR = chair(0.25)
STRAYS = {
    "a sliver 30 heights above": [(0, 0, 30), (0.01, 0, 30), (0, 0.01, 30)],
    "a sliver aside": [(20, 0, 0.5), (20.01, 0, 0.5), (20, 0.01, 0.5)],
    "a needle from the seat": [(0, 0, 0.5), (0.001, 0, 0.5), (0, 0, 12)],
    "slivers on both sides": [(9, 0, 0), (9.1, 0, 0), (9, 0.1, 0), (-7, 0, 0), (-7.1, 0, 0), (-7, 0.1, 0)],
    "one far and one farther": [(5, 0, 0), (5.1, 0, 0), (5, 0.1, 0), (0, 900, 0), (0.1, 900, 0), (0, 900.1, 0)],
    "one below": [(0, 0, -40), (0.01, 0, -40), (0, 0.01, -40)],
}


@pytest.mark.parametrize("name", STRAYS)
def test_a_few_stray_triangles_leave_a_shape_its_size(tmp_path, name):
    plain = make_model(*read(tmp_path, "a.off", off(*CHAIR).encode())[:2])
    for file, content in in_each_format(*with_strays(*CHAIR, *STRAYS[name])):
        mesh = read(tmp_path, file, content)
        model = make_model(mesh.vertex, mesh.face)
        assert (model.height, model.disc, model.sphere) == (plain.height, plain.disc, plain.sphere)
        (doubt,) = mesh.doubts
        assert doubt.startswith(f"left out {len(STRAYS[name]) // 3} triangles") and "times as large" in doubt


def test_strays_of_a_mesh_in_memory_are_left_out_too():
    mesh = load_shape(MeshSource("a", "chair", *with_strays(*CHAIR, *STRAYS["a sliver aside"])))
    assert len(mesh.face) == len(CHAIR[1]) and mesh.doubts


LEGS = [(x, y) for x in (-0.8, 0.79) for y in (-0.4, 0.39)]
THIN = {
    "a lamp on a thin pole": [
        ((-0.15, -0.15, 0), (0.15, 0.15, 0.03)),
        ((-0.01, -0.01, 0), (0.01, 0.01, 1.8)),
        ((-0.2, -0.2, 1.5), (0.2, 0.2, 1.8)),
    ],
    "a broom": [((-0.2, -0.02, 0), (0.2, 0.02, 0.1)), ((-0.01, -0.01, 0.1), (0.01, 0.01, 1.5))],
    "a board": [((0, 0, 0), (2, 0.3, 0.01))],
    "a door with a handle": [((0, 0, 0), (0.9, 0.02, 2)), ((0.8, -0.06, 1), (0.82, 0.08, 1.02))],
    "a table of four thin legs": [
        ((-0.8, -0.4, 0.7), (0.8, 0.4, 0.72)),
        *(((x, y, 0), (x + 0.01, y + 0.01, 0.7)) for x, y in LEGS),
    ],
}


@pytest.mark.parametrize("name", THIN)
def test_thin_parts_of_furniture_are_no_strays(tmp_path, name):
    boxes = [np.where(CUBE_VERTEX == 0, low, high) for low, high in THIN[name]]
    faces = np.concatenate([CUBE_TRIANGLES + 8 * k for k in range(len(boxes))])
    mesh = read(tmp_path, "a.off", off(np.concatenate(boxes), faces).encode())
    assert len(mesh.face) == 12 * len(boxes) and not mesh.doubts


@pytest.mark.parametrize("far", [(1e7, 0, 0), (np.nan, 0, 0), (0, np.inf, 0), (3e4, 3e4, 3e4)])
def test_vertices_of_no_face_count_nowhere(tmp_path, far):
    plain = make_model(*read(tmp_path, "a.off", off(*CHAIR).encode())[:2])
    for name, content in in_each_format(np.concatenate([[far], CHAIR[0]]), np.asarray(CHAIR[1]) + 1):
        mesh = read(tmp_path, name, content)
        assert np.isfinite(mesh.vertex).all() or name == "never"
        model = make_model(mesh.vertex, mesh.face)
        assert (model.height, model.disc, len(mesh.face)) == (plain.height, plain.disc, len(CHAIR[1]))


def test_a_shell_listed_again_facing_in_changes_neither_size_nor_density(tmp_path):
    vertex, face = CHAIR
    again = np.concatenate([vertex, vertex]), np.concatenate([face, np.asarray(face)[:, ::-1] + len(vertex)])
    single, double = (make_model(*read(tmp_path, "a.off", off(*mesh).encode())[:2]) for mesh in (CHAIR, again))
    assert (single.height, single.disc) == (double.height, double.disc)
    assert np.allclose(double.area[: len(face)], single.area) and double.area[-1] == pytest.approx(2 * single.area[-1])


@needs_shared_data
def test_nothing_strays_from_real_furniture():
    paths = [*SHARED.glob("furniture8/*/*/*.off"), *SHARED.glob("furniture_blueprint3d_mit/*.obj")]
    assert len(paths) == 69
    for path in paths:
        assert not read_mesh(path, path.read_bytes(), "auto").doubts, path
