"""The loops over meshes against their twins: numbers bit for bit as `float` reads them, areas, double triangles."""

import json
import os
import pathlib
import struct
import subprocess
import sys

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from gen4d.sources import SourceError
from gen4d.sources.formats import mesh_kernels as kernels
from gen4d.sources.formats import text_kernels
from gen4d.sources.formats.text import read_numbers
from tests import naive_meshes

PATH = pathlib.Path("numbers")

MANY = 20_000 if not numba.config.DISABLE_JIT else 300
ODD = ["-0", "+5", "5.", ".5", "-.5e3", "1E+5", "0000012.50", "1e400", "1e-400", "-0.0e0", "4.35", "1e22", "1e23"]
ODD += ["9007199254740993", "9007199254740992", "123456789012345678901234567890", "0." + "0" * 30 + "1", "1e-22", "0.3"]


def words(key: int, count: int) -> list[str]:
    """Decimal numbers of every length and size, as programs write them."""
    rng = np.random.default_rng(key)
    whole = [str(number) for number in rng.integers(0, 10 ** rng.integers(1, 19, count // 4))]
    short = [f"{number:.6f}" for number in rng.uniform(-50, 50, count // 4)]
    exact = [repr(struct.unpack("<d", bits)[0]) for bits in rng.integers(0, 256, (count // 4, 8)).astype(np.uint8)]
    exact = [word for word in exact if word.strip("-") not in ("nan", "inf")]
    digits = rng.integers(0, 20, count // 4).tolist()
    powers = (10.0 ** rng.uniform(-30, 30, count // 4)).tolist()
    rounded = [f"{number:.{n}e}" for n, number in zip(digits, powers, strict=True)]
    return [*ODD, *whole, *short, *exact, *rounded]


def read(text: bytes, most: int):
    """Values, starts of lines, and how many numbers the kernel left."""
    value, first, late = np.empty(most), np.empty(most, bool), np.empty((most, 3), np.int64)
    count, waiting = text_kernels.read_numbers(np.frombuffer(text, np.uint8), value, first, late)
    return count, waiting, value[:count], first[:count]


def test_numbers_are_those_that_float_reads_bit_for_bit():
    some = words(1, MANY)
    text = "\r\n\t ".join(some).encode() + b"\n"
    found = read_numbers(PATH, text, len(some)).value
    assert found.tobytes() == naive_meshes.read_numbers(np.frombuffer(text, np.uint8)).tobytes()
    count, late, *_ = read(text, len(some))
    assert count == len(some) and 0 < late < len(some) / 2  # most take the short way


def test_numbers_near_the_middle_of_two_values_are_rounded_as_float_does():
    rng = np.random.default_rng(5)
    odd = rng.integers(2**53, 10**18, MANY // 20) | 1
    middle = [str(int(number)) for number in (rng.integers(2**52, 2**53, MANY // 20) * 2 + 1)]
    scaled = [f"{number}e{power}" for number, power in zip(odd.tolist(), rng.integers(-22, 23, len(odd)), strict=True)]
    text = "\n".join([*middle, *scaled]).encode()
    count, late, *_ = read(text, 2 * len(odd))
    assert late < 1.1 * len(middle) and count == 2 * len(odd)
    found = read_numbers(PATH, text, count).value
    assert found.tobytes() == naive_meshes.read_numbers(np.frombuffer(text, np.uint8)).tobytes()


@pytest.mark.parametrize("text", ["1 2 3\n4 5 6\n", "1\r2 3\r\n\r\n 4\n", " \n 7", "1 2\n\n  nan 3\t4\n-NaN"])
def test_numbers_know_whether_they_begin_a_line(text):
    letters = np.frombuffer(text.encode(), np.uint8)
    count, late, value, first = read(text.encode(), 20)
    assert late == 0 and count == len(text.split())
    assert_array_equal(first, naive_meshes.line_starts(letters))
    assert_array_equal(value, naive_meshes.read_numbers(letters))


@pytest.mark.parametrize("text", ["1 2 x", "1 2 0x1", "1 - 2", "1 2e 3", "1 1_0 2", "1 2 2e+", "1.2.3 1", "nano"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(SourceError, match="where a number belongs, on line 1"):
        read_numbers(PATH, text.encode(), 3)


ODD_VALUES = {"nan": np.nan, "-NaN": np.nan, "-nan(ind)": np.nan, "nan(snan)": np.nan, "1.#QNAN": np.nan}
ODD_VALUES |= {"-1.#IND": np.nan, "1.#QNAN0": np.nan, "-1.#IND00": np.nan, "inf": np.inf, "+Infinity": np.inf}
ODD_VALUES |= {"-inf": -np.inf, "1.#INF": np.inf, "-1.#INF00": -np.inf, "1e999": np.inf}


@pytest.mark.parametrize("word", ODD_VALUES)
def test_nan_and_infinity_are_read_as_any_system_prints_them(word):
    assert_array_equal(read_numbers(PATH, f"1 {word} 2".encode(), 3).value, [1, ODD_VALUES[word], 2])


def test_many_odd_numbers_take_a_second_reading():
    text = b"1e999 " * 5000
    assert np.isinf(read_numbers(PATH, text, 5000).value).all()


@pytest.mark.parametrize("text, count", [("", 0), (" \n", 0), ("7", 1), ("7 8 9", 3)])
def test_more_numbers_than_wanted_are_refused(text, count):
    assert len(read_numbers(PATH, text.encode(), count).value) == count
    if count:
        with pytest.raises(SourceError, match="has more numbers"):
            read_numbers(PATH, text.encode(), count - 1)


@settings(derandomize=True, deadline=None, max_examples=300 if not numba.config.DISABLE_JIT else 60)
@given(
    st.lists(st.integers(0, 10**18 - 1), max_size=9), st.text(" \t\r\n,.0-9e[]{}\x0b", max_size=4), st.integers(0, 99)
)
def test_a_list_of_json_is_read_as_python_reads_it_or_left_to_it(values, odd, place):
    plain = json.dumps(values, indent=place % 3 or None)[1:] + "}"
    place %= len(plain)
    for text in (plain, plain[:place] + odd + plain[place:]):
        out = np.empty(12, np.int64)
        count, end = text_kernels.read_json_list(np.frombuffer(text.encode(), np.uint8), 0, out)
        wanted = naive_meshes.read_json_list(text) if "]" in text else None
        assert (out[:count].tolist() if end >= 0 else None) == wanted
        assert end < 0 or text[end] == "]"


@pytest.mark.parametrize("text, most", [("1, 2]", 1), ("1, 2", 2), ("1", 2), ("", 1), (f"{10**18}]", 1), ("01]", 1)])
def test_a_list_that_is_not_plain_is_left_to_a_parser(text, most):
    out = np.empty(most, np.int64)
    assert text_kernels.read_json_list(np.frombuffer(text.encode(), np.uint8), 0, out) == (0, -1)


@pytest.mark.parametrize("vertices, faces", [(1, 1), (5, 300), (1000, MANY)])
def test_the_bounds_of_faces_are_the_twins(vertices, faces):
    vertex, face = mesh(7, vertices, faces)
    out = np.empty((2, 3))
    kernels.bounds(vertex, face, out)
    assert_array_equal(out, naive_meshes.bounds(vertex, face))


def mesh(key: int, vertices: int, faces: int):
    rng = np.random.default_rng(key)
    return rng.normal(0, 3, (vertices, 3)), rng.integers(0, vertices, (faces, 3))


@pytest.mark.parametrize("vertices, faces", [(1, 1), (3, 1), (5, 300), (1000, MANY)])
def test_areas_are_the_twins_bit_for_bit(vertices, faces):
    vertex, face = mesh(2, vertices, faces)
    out = np.empty(faces)
    kernels.double_areas(vertex, face, out)
    assert_array_equal(out, naive_meshes.double_areas(vertex, face))


@pytest.mark.parametrize("vertices, faces", [(1, 1), (3, 9), (5, 300), (30, MANY), (100_000, 500)])
def test_the_first_triangle_of_three_corners_is_marked(vertices, faces):
    face = mesh(3, vertices, faces)[1]
    face = np.concatenate([face, face[::-1, [2, 0, 1]]])
    out, table = np.empty(len(face), bool), np.full(1 << int(2 * len(face)).bit_length(), -1, np.int64)
    kernels.first_triples(face, table, out)
    # three corners of which two are one are not told from others of those two: such triangles have no area
    proper = np.array([len(set(corners)) == 3 for corners in face.tolist()])
    assert_array_equal(out[proper], naive_meshes.first_triples(face[proper]))
    assert not out[faces:][proper[faces:]].any()


@pytest.mark.parametrize("vertices, faces", [(3, 1), (5, 300), (1000, MANY)])
def test_areas_by_place_are_the_twins(vertices, faces):
    vertex, face = mesh(4, vertices, faces)
    area, low = np.random.default_rng(4).random(faces), np.full(3, -4.0)
    out = np.zeros((3, 16))
    kernels.area_bins(vertex, face, area, low, np.full(3, 2.0), out)
    assert np.allclose(out, naive_meshes.area_bins(vertex, face, area, low, np.full(3, 2.0), 16), rtol=1e-12)


def star(rng, corners: int, spikes: float) -> np.ndarray:
    """A face around the origin whose corners lie at any distance, in a plane of any tilt."""
    angle = np.sort(rng.random(corners)) * 2 * np.pi
    flat = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (1 - spikes * rng.random((corners, 1)))
    return flat @ np.linalg.qr(rng.normal(size=(3, 3)))[0][:2] + rng.normal(size=3)


@pytest.mark.parametrize("corners", [4, 5, 6, 9, 17])
def test_faces_are_cut_as_the_twin_cuts_them(corners):
    rng = np.random.default_rng(corners)
    for case in range(MANY // 300):
        vertex = star(rng, corners, 0.9) if case % 3 else rng.normal(size=(corners, 3))
        vertex[1] = vertex[0] if case % 7 == 0 else vertex[1]
        face = np.arange(corners)[None]
        out = np.stack([np.broadcast_to(face[:, :1], (1, corners - 2)), face[:, 1:-1], face[:, 2:]], axis=2)
        around = out.copy()
        crossed = kernels.clip_ears(vertex, face, out)
        expected = naive_meshes.clip_ears(vertex, face[0])
        assert crossed == (expected is None)
        assert_array_equal(out[0], around[0] if expected is None else expected)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="this is the run without the compiler")
def test_the_kernels_equal_their_twins_without_the_compiler_too():
    options = {"env": os.environ | {"NUMBA_DISABLE_JIT": "1"}, "cwd": pathlib.Path(__file__).parents[1]}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "ignore:overflow:RuntimeWarning", __file__]
    done = subprocess.run(command, **options, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
