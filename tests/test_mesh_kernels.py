"""The loops over meshes against their twins: numbers bit for bit as `float` reads them, areas, double triangles."""

import os
import pathlib
import struct
import subprocess
import sys

import numba
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gen4d.sources.formats import mesh_kernels as kernels
from gen4d.sources.formats import off
from tests import naive

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


def test_numbers_are_those_that_float_reads_bit_for_bit():
    some = words(1, MANY)
    text = "\r\n\t ".join(some).encode() + b"\n"
    found = off._plain_numbers(text, len(some))
    assert found.tobytes() == naive.read_numbers(np.frombuffer(text, np.uint8)).tobytes()
    quick = np.empty(len(some)), np.empty((len(some), 3), np.int64)
    count, late = kernels.read_numbers(np.frombuffer(text, np.uint8), *quick)
    assert count == len(some) and 0 < late < len(some) / 2  # most take the short way


@pytest.mark.parametrize(
    "text", ["1 2 x", "1 2 0x1", "1 2 nan", "1 - 2", "1 2e 3", "1 1_0 2", "1 2 2e+", "1 . 2", "1.2.3"]
)
def test_what_is_no_plain_number_is_left_to_others(text):
    assert off._plain_numbers(text.encode(), 3) is None


@pytest.mark.parametrize("text, count", [("", 0), (" \n", 0), ("7", 1), ("7 8 9", 3)])
def test_numbers_must_be_as_many_as_wanted(text, count):
    assert len(off._plain_numbers(text.encode(), count)) == count
    assert off._plain_numbers(text.encode(), count + 1) is None
    if count:
        assert off._plain_numbers(text.encode(), count - 1) is None


def mesh(key: int, vertices: int, faces: int):
    rng = np.random.default_rng(key)
    return rng.normal(0, 3, (vertices, 3)), rng.integers(0, vertices, (faces, 3))


@pytest.mark.parametrize("vertices, faces", [(1, 1), (3, 1), (5, 300), (1000, MANY)])
def test_areas_are_the_twins_bit_for_bit(vertices, faces):
    vertex, face = mesh(2, vertices, faces)
    out = np.empty(faces)
    kernels.double_areas(vertex, face, out)
    assert_array_equal(out, naive.double_areas(vertex, face))


@pytest.mark.parametrize("vertices, faces", [(1, 1), (3, 9), (5, 300), (30, MANY), (100_000, 500)])
def test_the_first_triangle_of_three_corners_is_marked(vertices, faces):
    face = mesh(3, vertices, faces)[1]
    face = np.concatenate([face, face[::-1, [2, 0, 1]]])
    out, table = np.empty(len(face), bool), np.full(1 << int(2 * len(face)).bit_length(), -1, np.int64)
    kernels.first_triples(face, table, out)
    # three corners of which two are one are not told from others of those two: such triangles have no area
    proper = np.array([len(set(corners)) == 3 for corners in face.tolist()])
    assert_array_equal(out[proper], naive.first_triples(face[proper]))
    assert not out[faces:][proper[faces:]].any()


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="this is the run without the compiler")
def test_the_kernels_equal_their_twins_without_the_compiler_too():
    options = {"env": os.environ | {"NUMBA_DISABLE_JIT": "1"}, "cwd": pathlib.Path(__file__).parents[1]}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "ignore:overflow:RuntimeWarning", __file__]
    done = subprocess.run(command, **options, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
