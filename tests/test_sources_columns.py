"""What columns are called, formats that people have besides PLY and PCD, and headers that nobody expected."""

import io
import sys

import numpy as np
import pytest

from gen4d.sources import SourceError
from gen4d.sources.formats.points import read_points
from tests.makers.files import pcd, ply, structured
from tests.makers.rooms import room_points

POINT = room_points(150)
IDS = np.arange(150) % 41


def read(tmp_path, name, content):
    return read_points(tmp_path / name, content if isinstance(content, bytes) else content.encode())


LABELS = ["label", "labels", "scalar_label", "Label", "scalar_Label", "class", "Classification", "semantic", "segment"]
INSTANCES = ["instance", "scalar_instance", "Instance_ID", "object_id", "objectId"]


@pytest.mark.parametrize("name", LABELS)
def test_labels_are_found_by_the_names_that_programs_give_them(tmp_path, name):
    columns = {"red": np.zeros(150, np.uint8), name: IDS.astype(np.float32)}
    for order in ("ascii", "binary_little_endian"):
        table = read(tmp_path, "a.ply", ply(POINT, columns, order))
        assert np.array_equal(table.label, IDS) and table.instance is None and not table.unused
    assert np.array_equal(read(tmp_path, "a.pcd", pcd(structured(POINT, **columns))).label, IDS)


@pytest.mark.parametrize("name", INSTANCES)
def test_instances_are_found_likewise(tmp_path, name):
    table = read(tmp_path, "a.ply", ply(POINT, {name: IDS.astype(np.int32)}))
    assert np.array_equal(table.instance, IDS) and table.label is None


def test_axes_may_be_in_capitals_and_a_name_as_it_is_goes_first(tmp_path):
    content = ply(POINT, {"scalar_label": IDS.astype(np.float32) + 1, "label": IDS.astype(np.uint8)})
    for axis in (b"x", b"y", b"z"):
        content = content.replace(b"float " + axis + b"\n", b"float " + axis.upper() + b"\n")
    table = read(tmp_path, "a.ply", content)
    assert np.array_equal(table.point, POINT) and np.array_equal(table.label, IDS)
    assert table.unused == ("scalar_label",)


def test_columns_that_may_be_ids_and_are_not_taken_are_named(tmp_path):
    looks = {name: np.zeros(150, np.uint8) for name in ("red", "alpha", "scalar_Intensity", "nx", "quality")}
    odd = {"scalar_class": np.full(150, 0.5, np.float32), "room_type": IDS.astype(np.uint8)}
    table = read(tmp_path, "a.ply", ply(POINT, looks | odd))
    assert table.label is None and table.unused == ("scalar_class", "room_type")
    with pytest.raises(SourceError, match="`label` that are not whole numbers"):
        read(tmp_path, "a.ply", ply(POINT, {"label": np.full(150, 0.5, np.float32)}))


LENGTHS = {"even": [3] * 150, "none": [0] * 150, "mixed": [row % 5 for row in range(150)]}


def lists_in_vertices(order, lengths):
    """A PLY whose vertices carry a list between y and z."""
    sign = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[order]
    head = f"ply\nformat {order} 1.0\nelement vertex {len(lengths)}\nproperty float x\nproperty float y\n"
    head += "property list uchar int seen\nproperty float z\nproperty uchar label\nend_header\n"
    body = b""
    for row, length in enumerate(lengths):
        x, y, z = POINT[row].tolist()
        if sign:
            body += (
                np.array([x, y], sign + "f4").tobytes()
                + bytes([length])
                + np.arange(length).astype(sign + "i4").tobytes()
            )
            body += np.array([z], sign + "f4").tobytes() + bytes([IDS[row]])
        else:
            body += " ".join(map(repr, [x, y, length, *range(length), z, int(IDS[row])])).encode() + b"\n"
    return head.encode() + body


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_ply_vertices_with_lists_keep_their_scalars(tmp_path, order, lengths):
    content = lists_in_vertices(order, lengths)
    table = read(tmp_path, "a.ply", content)
    assert np.array_equal(table.point.astype(np.float32), POINT) and np.array_equal(table.label, IDS)
    for length in range(0, len(content) - 1, 97):
        with pytest.raises(SourceError):
            read(tmp_path, "a.ply", content[:length])


def with_header(old, new, data="ascii"):
    content = pcd(structured(POINT), data)
    assert old in content
    return content.replace(old, new, 1)


PCD_HEADERS = {
    "a count of 0": (
        b"x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1",
        b"x w y z\nSIZE 4 4 4 4\nTYPE F U F F\nCOUNT 1 0 1 1",
    ),
    "columns": (b"FIELDS", b"COLUMNS"),
    "a key of its own": (b"VIEWPOINT", b"SENSOR_ID 7\nVIEWPOINT"),
    "no viewpoint": (b"VIEWPOINT 0 0 0 1 0 0 0\n", b""),
}  # fmt: skip


@pytest.mark.parametrize("data", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("case", PCD_HEADERS)
def test_pcd_headers_that_other_programs_write_are_read(tmp_path, case, data):
    assert np.array_equal(
        read(tmp_path, "a.pcd", with_header(*PCD_HEADERS[case], data)).point.astype(np.float32), POINT
    )


def rows(separator=" ", *columns, decimal="."):
    values = np.column_stack([POINT.astype(float), *columns])
    lines = (separator.join(f"{value:.9g}".replace(".", decimal) for value in row) for row in values)
    return "\n".join(lines) + "\n"


COLOUR = np.full((150, 3), 7)
TABLES = {
    "blanks.xyz": rows(),
    "tabs.txt": rows("\t"),
    "commas.csv": rows(","),
    "commas and blanks.csv": rows(", "),
    "semicolons.csv": rows(";"),
    "decimal commas.csv": rows(";", decimal=","),
    "decimal commas.txt": rows(" ", decimal=","),
    "names.csv": "x,y,z\n" + rows(","),
    "quoted names.csv": '"X","Y","Z"\n' + rows(","),
    "cloudcompare.txt": "//X Y Z\n" + rows(),
    "comment.xyz": "# exported\n# x y z\n" + rows(),
    "count.pts": "150\n" + rows(),
    "colours.xyz": rows(" ", COLOUR),
    "intensity and colours.pts": "150\n" + rows(" ", np.linspace(0, 1, 150), COLOUR),
}


@pytest.mark.parametrize("name", TABLES)
def test_points_as_text_are_read_however_they_are_parted(tmp_path, name):
    table = read(tmp_path, name, TABLES[name])
    assert np.array_equal(table.point.astype(np.float32), POINT) and not table.unused and table.label is None


def test_text_with_names_has_labels_wherever_they_stand(tmp_path):
    table = read(tmp_path, "a.txt", "//Label X Y Z Instance\n" + "\n".join(
        f"{label} {x} {y} {z} 3" for label, (x, y, z) in zip(IDS, POINT.tolist(), strict=True)))  # fmt: skip
    assert np.array_equal(table.point.astype(np.float32), POINT)
    assert np.array_equal(table.label, IDS) and set(table.instance) == {3}


def test_text_without_names_says_which_columns_may_be_ids(tmp_path):
    assert read(tmp_path, "a.xyz", rows(" ", IDS)).unused == ("column 4",)
    assert read(tmp_path, "a.xyz", rows(" ", COLOUR, IDS)).unused == ("column 7",)


TABLE_DAMAGE = {
    "words.txt": ("hello\nworld\n", "begins with 'hello'"),
    "narrow.xyz": ("1 2\n3 4\n", "2 numbers a line"),
    "ragged.xyz": (rows() + "1 2\n", "2 numbers in point 150, at byte"),
    "hole.csv": (rows(",").replace(",", ",,", 1), "empty cell on line 1"),
    "count.pts": ("151\n" + rows(), "declares 151 points and has 150"),
    "names.csv": ("x,y,z,label\n" + rows(","), "3 numbers a line and 4 names"),
    "a word.xyz": (rows() + "1 2 three\n", "'three' where a number belongs, on line 151"),
}


@pytest.mark.parametrize("name", TABLE_DAMAGE)
def test_damaged_text_is_refused_with_file_and_rule(tmp_path, name):
    content, words = TABLE_DAMAGE[name]
    with pytest.raises(SourceError) as error:
        read(tmp_path, name, content)
    assert words in str(error.value) and str(error.value).startswith(str(tmp_path / name))


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


NPZ = {
    "capitals": {"Points": POINT, "Labels": IDS},
    "one that fits": {"cloud": POINT, "origin": np.zeros(3), "colour": np.zeros((150, 1))},
    "a wide one": {"data": np.column_stack([POINT, POINT]), "semantic": IDS},
    "known name beside others": {"normals": POINT * 0, "pc": POINT},
}


@pytest.mark.parametrize("case", NPZ)
def test_npz_points_are_found_by_name_or_as_the_only_array_that_fits(tmp_path, case):
    table = read(tmp_path, "a.npz", npz(**NPZ[case]))
    assert np.array_equal(table.point, POINT)
    assert (table.label is not None) == any("ab" in name or "sem" in name for name in NPZ[case])


def test_npz_without_points_lists_what_is_there_with_its_shapes(tmp_path):
    with pytest.raises(SourceError, match=r"its arrays: a \(150, 3\), b \(150, 4\), c \(7,\)"):
        read(tmp_path, "a.npz", npz(a=POINT, b=np.zeros((150, 4)), c=np.zeros(7)))


FAR = POINT + [445_000.0, 5_030_000.0, 120.0]


def las(suffix, version="1.2", classes=IDS % 30):
    laspy = pytest.importorskip("laspy", reason="laspy is not installed: pip install '.[survey]'")
    header = laspy.LasHeader(point_format=3 if version == "1.2" else 6, version=version)
    header.offsets, header.scales = FAR.min(axis=0), [0.0001] * 3
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = FAR.T
    cloud.classification = classes.astype(np.uint8)
    out = io.BytesIO()
    cloud.write(out, do_compress=suffix == "laz")
    return out.getvalue()


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las_and_laz_points_come_back_with_their_classes(tmp_path, suffix, version):
    content = las(suffix, version)
    table = read(tmp_path, f"a.{suffix}", content)
    assert table.point.dtype == np.float64 and np.abs(table.point - FAR).max() < 6e-5
    assert np.array_equal(table.label, IDS % 30)
    assert read(tmp_path, f"a.{suffix}", las(suffix, version, IDS * 0)).label is None
    for length in (0, 50, 230, len(content) // 2, len(content) - 9):
        with pytest.raises(SourceError, match=rf"a\.{suffix}: (is|has) "):
            read(tmp_path, f"a.{suffix}", content[:length])


@pytest.mark.parametrize("suffix", ["las", "laz"])
def test_las_that_declares_more_than_it_can_hold_is_refused_before_it_is_read(tmp_path, suffix):
    content = bytearray(las(suffix))
    content[107:111] = (2**31).to_bytes(4, "little")
    with pytest.raises(SourceError, match="declares 2147483648 points of 34 bytes"):
        read(tmp_path, f"a.{suffix}", bytes(content))


def test_e57_points_of_all_its_scans_come_back(tmp_path):
    pye57 = pytest.importorskip("pye57", reason="pye57 is not installed: pip install '.[survey]'")
    file = pye57.E57(str(tmp_path / "a.e57"), mode="w")
    for shift in (0, 9):
        columns = {f"cartesian{axis}": POINT[:, k].astype(float) + shift for k, axis in enumerate("XYZ")}
        file.write_scan_raw(columns)
    file.close()
    content = (tmp_path / "a.e57").read_bytes()
    assert np.allclose(read(tmp_path, "a.e57", content).point, np.concatenate([POINT, POINT + 9]), atol=1e-6)
    for length in (0, 10, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(SourceError, match=r"a\.e57: is "):
            read(tmp_path, "a.e57", content[:length])


@pytest.mark.parametrize("name, package", [("a.las", "laspy"), ("a.laz", "laspy"), ("a.e57", "pye57")])
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        SourceError, match=rf"needs the package {package}: from a clone of gen4d, pip install '\.\[survey\]'"
    ):
        read(tmp_path, name, b"LASF")
