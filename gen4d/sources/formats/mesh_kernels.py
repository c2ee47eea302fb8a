"""Compiled loops over meshes: numbers out of text, areas, and triangles listed twice. NumPy twins: `tests/naive.py`."""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}
_TENS = 10.0 ** np.arange(23)  # exact in float64, as no higher power is
_MOST_DIGITS = 18
_EXACT = 1 << 53
_MANY = 10_000  # an exponent beyond which digits are no longer counted


@njit(**_FLAGS)
def _is_space(letter):
    return letter == 32 or 9 <= letter <= 13


@njit(**_FLAGS)
def read_numbers(text, out, late):
    """Numbers of a text (N,) uint8, parted by white space, into `out` (M,) float64, each rounded once.

    A whole number below 2^53 times or through a power of ten up to 22 is one operation on exact values, so it is what
    `float` gives. Numbers with more digits or other powers are left to it: row k of `late` (M, 3) gets the index, start
    and end of the k-th. Returns how many numbers there are and how many are late; (-1, 0) for anything that is not a
    plain decimal number, and for more than M.
    """
    at, count, waiting, end = 0, 0, 0, text.shape[0]
    while True:
        while at < end and _is_space(text[at]):
            at += 1
        if at == end:
            return count, waiting
        start = at
        negative = text[at] == 45
        if negative or text[at] == 43:
            at += 1
        mantissa, power, digits, figures, point = np.int64(0), 0, 0, 0, False
        while at < end:
            letter = np.int64(text[at])
            if 48 <= letter <= 57:
                figures += 1
                if digits > 0 or letter != 48:
                    digits += 1
                if digits <= _MOST_DIGITS:
                    mantissa = mantissa * 10 + (letter - 48)
                power -= 1 if point else 0
            elif letter == 46 and not point:
                point = True
            else:
                break
            at += 1
        if figures == 0:
            return -1, 0
        if at < end and (text[at] == 101 or text[at] == 69):
            at += 1
            below = at < end and text[at] == 45
            if below or (at < end and text[at] == 43):
                at += 1
            exponent, first = 0, at
            while at < end and 48 <= text[at] <= 57:
                exponent = min(exponent * 10 + np.int64(text[at]) - 48, _MANY)
                at += 1
            if at == first:
                return -1, 0
            power += -exponent if below else exponent
        if (at < end and not _is_space(text[at])) or count == out.shape[0]:
            return -1, 0
        if digits > _MOST_DIGITS or mantissa >= _EXACT or abs(power) > 22:
            late[waiting, 0], late[waiting, 1], late[waiting, 2] = count, start, at
            waiting += 1
        else:
            value = np.float64(mantissa)
            value = value / _TENS[-power] if power < 0 else value * _TENS[power]
            out[count] = -value if negative else value
        count += 1


@njit(**_FLAGS)
def double_areas(vertex, face, out):
    """Twice the area (F,) of each triangle (F, 3) of points (V, 3): the length of the cross product of two sides."""
    for i in range(face.shape[0]):
        a, b, c = face[i, 0], face[i, 1], face[i, 2]
        ux, uy, uz = vertex[b, 0] - vertex[a, 0], vertex[b, 1] - vertex[a, 1], vertex[b, 2] - vertex[a, 2]
        vx, vy, vz = vertex[c, 0] - vertex[a, 0], vertex[c, 1] - vertex[a, 1], vertex[c, 2] - vertex[a, 2]
        x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        out[i] = np.sqrt((x * x + y * y) + z * z)


@njit(**_FLAGS)
def first_triples(face, table, out):
    """Mark the first triangle (F, 3) of each three corners, in whatever order they are listed.

    By open addressing: `table` holds rows, is a power of two of at least twice the triangles, and comes in filled with
    -1.
    """
    last = np.uint64(table.shape[0] - 1)
    for i in range(face.shape[0]):
        low, middle, high = _ordered(face[i, 0], face[i, 1], face[i, 2])
        mixed = (np.uint64(low) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(middle) * np.uint64(0xBF58476D1CE4E5B9))
        mixed ^= np.uint64(high) * np.uint64(0x94D049BB133111EB)
        slot = (mixed ^ (mixed >> np.uint64(29))) & last
        out[i] = True
        while table[slot] >= 0:
            row = table[slot]
            if (low, middle, high) == _ordered(face[row, 0], face[row, 1], face[row, 2]):
                out[i] = False
                break
            slot = (slot + np.uint64(1)) & last
        if out[i]:
            table[slot] = i


@njit(**_FLAGS)
def _ordered(a, b, c):
    low, high = min(a, b, c), max(a, b, c)
    return low, a + b + c - low - high, high
