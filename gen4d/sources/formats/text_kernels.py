"""Compiled loops over texts: numbers, lines and lists of JSON. NumPy twins: `tests/naive_meshes.py`."""

import numpy as np
from numba import njit

_FLAGS = {"cache": True, "nogil": True, "error_model": "numpy"}
_TENS = 10.0 ** np.arange(23)  # exact in float64, as no higher power is
_MOST_DIGITS = 18
_EXACT = 1 << 53
_SPLIT = 134217729.0  # 2^27 + 1: halves of a double whose products are exact
_MANY = 10_000  # an exponent beyond which digits are no longer counted


@njit(**_FLAGS)
def _is_space(letter):
    return letter == 32 or 9 <= letter <= 13


@njit(**_FLAGS)
def _number(text, at, end):
    """The plain decimal number that begins at `at`: where it ends, its value, and whether that is rounded once."""
    negative = text[at] == 45
    if negative or text[at] == 43:
        at += 1
    mantissa, power, begun = np.int64(0), 0, at  # a mantissa of too many digits overflows, and is not used
    while at < end and text[at] == 48:
        at += 1
    zeros = at
    while at < end and 48 <= text[at] <= 57:
        mantissa = mantissa * 10 + (np.int64(text[at]) - 48)
        at += 1
    digits, figures = at - zeros, at - begun
    if at < end and text[at] == 46:
        at += 1
        point = at
        while digits == 0 and at < end and text[at] == 48:
            at += 1
        zeros = at
        while at < end and 48 <= text[at] <= 57:
            mantissa = mantissa * 10 + (np.int64(text[at]) - 48)
            at += 1
        digits, figures, power = digits + at - zeros, figures + at - point, point - at
    if figures > 0 and at < end and (text[at] == 101 or text[at] == 69):
        at += 1
        below = at < end and text[at] == 45
        if below or (at < end and text[at] == 43):
            at += 1
        exponent, first = 0, at
        while at < end and 48 <= text[at] <= 57:
            exponent = min(exponent * 10 + np.int64(text[at]) - 48, _MANY)
            at += 1
        if at == first:
            figures = 0
        power += -exponent if below else exponent
    if figures == 0 or digits > _MOST_DIGITS or abs(power) > 22:
        return at, 0.0, False
    if mantissa < _EXACT:
        value, sure = np.float64(mantissa), True
        value = value / _TENS[-power] if power < 0 else value * _TENS[power]
    else:
        value, sure = _scaled(mantissa, power)
    return at, -value if negative else value, sure


@njit(**_FLAGS)
def _scaled(mantissa, power):
    """A whole number below 2^63 times or through a power of ten up to 22, and whether that is surely rounded right.

    In pairs of doubles, whose sum is right to 2^-100: what is rounded off has to be clear of half a unit in the last
    place, and of a quarter, where the unit changes.
    """
    high = np.float64(mantissa)
    low = np.float64(mantissa - np.int64(high))
    tens = _TENS[abs(power)]
    if power < 0:
        first = high / tens
        second = (_left(first, tens, high) + low) / tens
    else:
        first = high * tens
        second = low * tens - _left(high, tens, first)
    value = first + second
    rest = abs((first - value) + second)
    half = 0.5 * (np.nextafter(value, np.inf) - value)
    return value, abs(rest - half) > 1e-9 * half and abs(rest - 0.5 * half) > 1e-9 * half


@njit(**_FLAGS)
def _left(a, b, product):
    """product - a * b, exactly, for a product that is a * b but for rounding (Dekker)."""
    a_high, b_high = _SPLIT * a, _SPLIT * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return (((product - a_high * b_high) - a_high * b_low) - a_low * b_high) - a_low * b_low


@njit(**_FLAGS)
def _is_nan(text, at, end):
    """Whether `nan` or `-nan`, in any case, begins at `at` and ends its word."""
    at += 1 if text[at] == 45 else 0
    if at + 3 > end or (at + 3 < end and not _is_space(text[at + 3])):
        return False
    return (text[at] | 32) == 110 and (text[at + 1] | 32) == 97 and (text[at + 2] | 32) == 110


@njit(**_FLAGS)
def read_numbers(text, out, first, late):
    """Numbers of a text (N,) uint8, parted by white space, into `out` (M,) float64, each rounded once; `first` (M,)
    bool marks those that begin their lines.

    A whole number below 2^53 times or through a power of ten up to 22 is one operation on exact values, so it is what
    `float` gives, and one of up to 18 digits takes a few more. Numbers of more digits or other powers, those too near
    to the middle between two values, and words that are none are left to the caller: row k of `late` (L, 3) gets the
    index, start and end of the k-th. Returns how many words there are, M + 1 for more than M, and how many are late,
    also beyond L.
    """
    at, count, waiting, end, fresh = 0, 0, 0, text.shape[0], True
    while True:
        while at < end and _is_space(text[at]):
            fresh |= text[at] == 10 or text[at] == 13
            at += 1
        if at == end:
            return count, waiting
        if count == out.shape[0]:
            return count + 1, waiting
        start = at
        at, value, plain = _number(text, at, end)
        if at < end and not _is_space(text[at]):
            plain = _is_nan(text, start, end)
            value = np.nan
            while at < end and not _is_space(text[at]):
                at += 1
        if plain:
            out[count] = value
        else:
            if waiting < late.shape[0]:
                late[waiting, 0], late[waiting, 1], late[waiting, 2] = count, start, at
            waiting += 1
        first[count] = fresh
        fresh = False
        count += 1


@njit(**_FLAGS)
def read_json_list(text, at, out):
    """Whole numbers of a JSON list into `out` (M,) int64, from the letter `at` behind its bracket in a text (N,) uint8.

    Returns how many there are and where the closing bracket is; (0, -1) for an empty list and for all that a whole
    number from 0 to 10^18 may not be, which are left to a parser of JSON.
    """
    count, end = 0, text.shape[0]
    while True:
        while at < end and _is_json_space(text[at]):
            at += 1
        start, value = at, np.int64(0)
        while at < end and 48 <= text[at] <= 57 and at - start < _MOST_DIGITS:
            value = value * 10 + (np.int64(text[at]) - 48)
            at += 1
        if at == start or (text[start] == 48 and at > start + 1) or count == out.shape[0]:
            return 0, -1
        out[count] = value
        count += 1
        while at < end and _is_json_space(text[at]):
            at += 1
        if at == end or (text[at] != 44 and text[at] != 93):
            return 0, -1
        if text[at] == 93:
            return count, at
        at += 1


@njit(**_FLAGS)
def _is_json_space(letter):
    return letter == 32 or letter == 10 or letter == 13 or letter == 9
