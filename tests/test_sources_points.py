"""Points files: every format and oddity that is read, and what of them is refused with which words."""

import io
import zipfile

import numpy as np
import pytest

from gen4d.sources import SourceError
from gen4d.sources.formats.lzf import lzf_expand
from gen4d.sources.formats.points import read_column, read_points
from tests.makers.files import lzf_pack, pcd, ply, structured
from tests.makers.rooms import room_points
from tests.shared import SHARED, needs_shared_data

POINT = room_points(150)
LABEL = np.arange(150, dtype=np.uint16) % 41
FACES = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
MIXED_FACES = [(0, 1, 2), (3, 4, 5, 6), (7, 8, 9, 10, 11), (0, 5, 9)]
ORDERS = ["ascii", "binary_little_endian", "binary_big_endian"]


def read(tmp_path, name, content):
    return read_points(tmp_path / name, content)


def npy(array, **options):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, **options)
    return out.getvalue()


def npz(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def header_end(content):
    return content.index(b"end_header\n") + len(b"end_header\n")


@pytest.mark.parametrize("order", ORDERS)
def test_ply_points_and_labels_come_back_in_every_byte_order(tmp_path, order):
    table = read(tmp_path, "a.ply", ply(POINT, {"label": LABEL}, order, FACES))
    assert table.point.dtype == (np.float64 if order == "ascii" else np.float32)
    assert np.array_equal(table.point.astype(np.float32), POINT)
    assert np.array_equal(table.label, LABEL) and table.label.dtype == np.int32
    assert table.instance is None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("faces", [FACES, MIXED_FACES, []], ids=["triangles", "mixed", "none"])
@pytest.mark.parametrize("faces_first", [False, True])
def test_ply_faces_before_or_after_the_vertices_are_skipped_exactly(tmp_path, order, faces, faces_first):
    table = read(tmp_path, "a.ply", ply(POINT, None, order, faces, faces_first=faces_first))
    assert np.array_equal(table.point.astype(np.float32), POINT)


@pytest.mark.parametrize("count_type", ["u1", "i1", "u2", "i4", "u4"])
@pytest.mark.parametrize("order", ORDERS)
def test_ply_list_counts_may_have_any_integer_type(tmp_path, order, count_type):
    for faces in (FACES, MIXED_FACES):
        content = ply(POINT, None, order, faces, count_type, faces_first=True)
        assert np.array_equal(read(tmp_path, "a.ply", content).point.astype(np.float32), POINT)


@pytest.mark.parametrize("dtype", ["f8", "i4", "u1", "i2"])
def test_ply_coordinates_may_have_any_scalar_type(tmp_path, dtype):
    point = np.floor(POINT).astype(dtype)
    table = read(tmp_path, "a.ply", ply(point))
    assert table.point.dtype == np.float64 and np.array_equal(table.point, point)


def test_ply_header_with_crlf_comments_and_obj_info_is_read(tmp_path):
    content = ply(POINT, None, newline="\r\n", extra="comment made by hand\r\nobj_info num_cols 3\r\ncomment")
    assert np.array_equal(read(tmp_path, "a.ply", content).point, POINT)


def test_ply_ascii_with_crlf_and_blank_lines_is_read(tmp_path):
    content = ply(POINT, None, "ascii", FACES)
    crlf = content.replace(b"\n", b"\r\n") + b"\r\n\r\n"
    assert np.array_equal(read(tmp_path, "a.ply", crlf).point.astype(np.float32), POINT)


def ply_with(old, new, order="binary_little_endian", faces=FACES):
    return ply(POINT, None, order, faces).replace(old, new)


PLY_DAMAGE = {
    "garbage": (bytes(range(256)) * 4, "starts with"),
    "html": (b"<!DOCTYPE html><html>", "starts with"),
    "unknown format": (ply_with(b"binary_little_endian", b"binary_middle_endian"), "binary_middle_endian"),
    "no end_header": (ply_with(b"end_header\n", b""), "no line `end_header`"),
    "endless header": (b"ply\nformat ascii 1.0\n" + b"comment x\n" * 200_000 + b"end_header\n", "no line `end_header`"),
    "negative count": (ply_with(b"vertex 150", b"vertex -50"), "element vertex -50"),
    "2e9 vertices": (ply_with(b"vertex 150", b"vertex 2000000000"), "declares 2000000000 vertex"),
    "2e9 vertices in text": (ply_with(b"vertex 150", b"vertex 2000000000", "ascii"), "declares 2000000000 vertex"),
    "1e18 vertices": (ply_with(b"vertex 150", b"vertex 1000000000000000000"), "declares 1000000000000000000 vertex"),
    "5000 digits of vertices": (ply_with(b"vertex 150", b"vertex " + b"9" * 5000), "vertex 999"),
    "no format": (ply_with(b"format binary_little_endian 1.0\n", b""), "no header line `format`"),
    "fewer vertices": (ply_with(b"vertex 150", b"vertex 149"), "a list of 0 values"),
    "fewer vertices, no faces": (ply_with(b"vertex 150", b"vertex 149", faces=None), "after its last declared row"),
    "more vertices": (ply_with(b"vertex 150", b"vertex 151"), "truncated"),
    "fewer faces": (ply_with(b"face 3", b"face 2"), "after its last declared row"),
    "more faces": (ply_with(b"face 3", b"face 4"), "truncated"),
    "more lines": (ply_with(b"face 3", b"face 2", "ascii"), "lines of data"),
    "fewer lines": (ply_with(b"vertex 150", b"vertex 151", "ascii"), "4 numbers in vertex line 150"),
    "short row": (ply(POINT, None, "ascii").replace(b"\n4.0 ", b"\n", 1), "vertex line"),
    "word in a row": (ply(POINT, None, "ascii").replace(b"\n4.0 ", b"\nfour ", 1), "where a number belongs"),
    "unknown type": (ply_with(b"float y", b"half y"), "half"),
    "x twice": (ply_with(b"float y", b"float x"), "declares the property 'x' twice"),
    "no z": (ply_with(b"float z", b"float w"), "no column z"),
    "no vertices": (ply_with(b"element vertex", b"element points"), "no element `vertex`"),
    "a list counted in floats": (ply_with(b"list uchar", b"list float"), "lengths are integers"),
    "property before element": (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "property float x"),
    "no properties": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\nend_header\n",
        "no element `vertex` with",
    ),
    "label NaN": (ply(POINT, {"label": np.full(150, np.nan, np.float32)}), "whole numbers"),
    "label 1e10": (ply(POINT, {"label": np.full(150, 1e10)}), "whole numbers"),
    "label 2.5": (ply(POINT, {"label": np.full(150, 2.5)}), "whole numbers"),
}


@pytest.mark.parametrize("case", PLY_DAMAGE)
def test_damaged_ply_is_refused_with_file_and_rule(tmp_path, case):
    content, words = PLY_DAMAGE[case]
    with pytest.raises(SourceError) as error:
        read(tmp_path, "room.ply", content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "room.ply"))


@pytest.mark.parametrize("faces", [FACES, MIXED_FACES], ids=["triangles", "mixed"])
@pytest.mark.parametrize("faces_first", [False, True])
def test_binary_ply_cut_at_any_byte_is_refused(tmp_path, faces, faces_first):
    content = ply(POINT[:20], None, faces=faces, faces_first=faces_first)
    for length in range(len(content)):
        with pytest.raises(SourceError):
            read(tmp_path, "a.ply", content[:length])


def test_ply_face_list_with_a_negative_length_is_refused(tmp_path):
    content = ply(POINT, None, faces=MIXED_FACES, count_type="i1", faces_first=True)
    at = header_end(content)
    with pytest.raises(SourceError, match="truncated or broken at row 0"):
        read(tmp_path, "a.ply", content[:at] + b"\xff" + content[at + 1 :])


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
def test_pcd_points_come_back_from_every_encoding(tmp_path, data):
    rows = structured(POINT, label=LABEL, normal=np.ones((150, 3), np.float32), rgb=np.zeros(150, np.float32))
    table = read(tmp_path, "a.pcd", pcd(rows, data, height=3))
    assert np.array_equal(table.point.astype(np.float32), POINT)
    assert np.array_equal(table.label, LABEL)


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
def test_pcd_rows_of_nan_keep_their_place(tmp_path, data):
    point = POINT.copy()
    point[[0, 7, 149]] = np.nan
    table = read(tmp_path, "a.pcd", pcd(structured(point), data))
    assert np.array_equal(table.point.astype(np.float32), point, equal_nan=True)


def test_pcd_padding_fields_may_share_their_name(tmp_path):
    rows = structured(POINT, _a=np.zeros(150, np.uint8), _b=np.zeros((150, 5), np.uint8))
    assert np.array_equal(read(tmp_path, "a.pcd", pcd(rows)).point, POINT)


def pcd_with(old, new, data="binary"):
    return pcd(structured(POINT), data).replace(old, new)


PCD_DAMAGE = {
    "garbage": (bytes(range(256)) * 4, "not a PCD"),
    "no data line": (pcd(structured(POINT))[:120], "no line `DATA`"),
    "unknown data": (pcd_with(b"DATA binary", b"DATA binarier"), "DATA 'binarier'"),
    "no fields": (pcd_with(b"FIELDS x y z\n", b""), "no header line FIELDS"),
    "no z": (pcd_with(b"FIELDS x y z", b"FIELDS x y w"), "no column z"),
    "x twice": (pcd_with(b"FIELDS x y z", b"FIELDS x x z"), "declares a field twice"),
    "one size short": (pcd_with(b"SIZE 4 4 4", b"SIZE 4 4"), "2 SIZE"),
    "odd size": (pcd_with(b"SIZE 4 4 4", b"SIZE 4 4 3"), "not known to PCD"),
    "negative count": (pcd_with(b"COUNT 1 1 1", b"COUNT 1 1 -1"), "whole numbers"),
    "two values in x": (pcd(structured(POINT[:, [0, 0, 0]], x=POINT[:, :2])), "several values"),
    "width and points differ": (pcd_with(b"WIDTH 150", b"WIDTH 149"), "must agree"),
    "2e9 points": (pcd_with(b"150", b"2000000000"), "need 24000000000 bytes"),
    "2e9 points in text": (pcd_with(b"150", b"2000000000", "ascii"), "need 12000000000 bytes"),
    "more points": (pcd_with(b"150", b"151"), "truncated"),
    "fewer points": (pcd_with(b"150", b"149"), "counts are wrong"),
    "more points in text": (pcd_with(b"150", b"151", "ascii"), "lines of data"),
    "more points in a compressed": (pcd_with(b"150", b"151", "binary_compressed"), "do not fit"),
    "a word": (pcd(structured(POINT), "ascii").replace(b"\n4.0 ", b"\nfour ", 1), "where a number belongs"),
    "a wide line": (pcd_with(b"DATA ascii\n", b"DATA ascii\n7 ", "ascii"), "451 numbers on 150 lines"),
    "width twice": (pcd_with(b"HEIGHT 1", b"WIDTH 150"), "repeated header line 'WIDTH'"),
}


@pytest.mark.parametrize("case", PCD_DAMAGE)
def test_damaged_pcd_is_refused_with_file_and_rule(tmp_path, case):
    content, words = PCD_DAMAGE[case]
    with pytest.raises(SourceError) as error:
        read(tmp_path, "room.pcd", content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / "room.pcd"))


@pytest.mark.parametrize("data", ["binary", "binary_compressed"])
def test_pcd_cut_at_any_byte_is_refused(tmp_path, data):
    content = pcd(structured(POINT[:20]), data)
    for length in range(len(content)):
        with pytest.raises(SourceError):
            read(tmp_path, "a.pcd", content[:length])


def expand(packed, size):
    out = np.zeros(size, np.uint8)
    return lzf_expand(np.frombuffer(packed, np.uint8), out), out.tobytes()


@pytest.mark.parametrize("data", [b"", b"a", b"abcabcabcabc", b"\0" * 5000, bytes(range(256)) * 40, POINT.tobytes()])
def test_lzf_expands_what_was_packed(data):
    assert expand(lzf_pack(data), len(data)) == (len(data), data)


def test_lzf_never_leaves_its_arrays():
    for packed in (b"\x05ab", b"\x20\x00", b"\xe0", b"\xe0\xff", b"\x00a\xe0\xff\x00", b"\x00a\x20\x05"):
        assert expand(packed, 8)[0] == -1


@pytest.mark.parametrize("array", [POINT, POINT.astype("f8"), np.asfortranarray(POINT), POINT.astype(">f4")])
def test_npy_points_come_back_from_any_layout(tmp_path, array):
    wide = np.column_stack([array, np.ones(150, array.dtype)])
    for version in ((1, 0), (2, 0), (3, 0)):
        assert np.array_equal(read(tmp_path, "a.npy", npy(array, version=version)).point, POINT)
    assert np.array_equal(read(tmp_path, "a.npy", npy(wide)).point, POINT)


@pytest.mark.parametrize("name", ["points", "coord", "xyz", "pc", "my cloud"])
def test_npz_points_labels_and_instances_come_back(tmp_path, name):
    table = read(tmp_path, "a.npz", npz(**{name: POINT, "label": LABEL, "instance": LABEL[:, None].astype(np.int64)}))
    assert np.array_equal(table.point, POINT)
    assert np.array_equal(table.label, LABEL) and np.array_equal(table.instance, LABEL)


def npz_of(member, method=zipfile.ZIP_DEFLATED, name="points.npy"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, member)
    return out.getvalue()


BOMB = npz_of(npy(np.zeros((8_000_000, 3), np.float32)))
ARRAY_DAMAGE = {
    "garbage.npy": (bytes(range(256)), "holds no NumPy array"),
    "pickle.npy": (npy(np.array([[{}, 1, 2]]), allow_pickle=True), "Python objects are never loaded"),
    "words.npy": (npy(np.array([["a", "b", "c"]])), "numbers are needed"),
    "records.npy": (npy(structured(POINT)), "records"),
    "complex.npy": (npy(POINT.astype(np.complex64)), "numbers are needed"),
    "flat.npy": (npy(POINT.ravel()), "shape (450,)"),
    "narrow.npy": (npy(POINT[:, :2]), "shape (150, 2)"),
    "large.npy": (npy(POINT).replace(b"(150, 3), }       ", b"(2000000000, 3), }"), "truncated"),
    "short.npy": (npy(POINT)[:-1], "truncated"),
    "long.npy": (npy(POINT) + b"\0", "its shape is wrong"),
    "header.npy": (npy(POINT).replace(b"'shape'", b"'spahe'"), "spahe"),
    "headless.npy": (npy(POINT)[:9], "truncated or broken"),
    "garbage.npz": (bytes(range(256)), "not a readable archive"),
    "cut.npz": (npz(points=POINT)[:-30], "not a readable archive"),
    "names.npz": (npz(vertices=POINT, normals=POINT), "its arrays: vertices (150, 3), normals (150, 3)"),
    "counts.npz": (npz(points=POINT, label=LABEL[1:]), "150 points and 149 values"),
    "bomb.npz": (BOMB, "far more than points ever do"),
    "pickle.npz": (npz_of(npy(np.array([[{}, 1, 2]]), allow_pickle=True)), "Python objects are never loaded"),
    "method.npz": (npz_of(npy(POINT), zipfile.ZIP_BZIP2), "packed by method 12"),
    "label.npz": (npz(points=POINT, label=LABEL + 0.5), "whole numbers"),
}


@pytest.mark.parametrize("name", ARRAY_DAMAGE)
def test_damaged_arrays_are_refused_with_file_and_rule(tmp_path, name):
    content, words = ARRAY_DAMAGE[name]
    with pytest.raises(SourceError) as error:
        read(tmp_path, name, content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / name))


def test_a_bit_flip_inside_an_archive_is_found(tmp_path):
    content = bytearray(npz(points=POINT))
    content[len(content) // 2] ^= 1
    with pytest.raises(SourceError, match="not a readable archive"):
        read(tmp_path, "a.npz", bytes(content))


def test_suffixes_count_in_any_case_and_unknown_ones_are_refused(tmp_path):
    assert np.array_equal(read(tmp_path, "A.PLY", ply(POINT)).point, POINT)
    with pytest.raises(SourceError, match=r"suffix '.dxf'"):
        read(tmp_path, "a.dxf", b"0 0 0\n")


def test_a_labels_file_without_labels_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no property `label`"):
        read_column(tmp_path / "a.labels.ply", ply(POINT))


@needs_shared_data
@pytest.mark.parametrize(
    "name, rows, finite",
    [
        ("pcl_indoor/room_scan1.pcd", 112_586, 112_586),
        ("pcl_indoor/room_scan2.pcd", 112_624, 112_624),
        ("pcl_indoor/office1.pcd", 307_200, 254_456),
        ("indoor_fragment_open3d_ml/open3d_fragment.pcd", 113_662, 113_662),
    ],
)
def test_real_pcd_files_have_their_known_numbers_of_points(name, rows, finite):
    point = read_points(SHARED / name, (SHARED / name).read_bytes()).point
    assert (len(point), int(np.isfinite(point).all(axis=1).sum())) == (rows, finite)
    assert np.nanmax(np.abs(point)) < 20
