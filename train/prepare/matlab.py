"""Structs in MATLAB's .mat files as plain values: version 5 to 7 by scipy, 7.3, which is HDF5, by h5py.

A struct array becomes a list of dicts, one of a single element too; a cell array a list; text a str; numbers an array
in MATLAB's own shape. Both kinds of file give the same.
"""

import pathlib
import zlib
from collections.abc import Collection
from typing import Any

import h5py
import numpy as np
import scipy.io

from train.errors import Refused, reason

_BROKEN = (ValueError, TypeError, NotImplementedError, EOFError, OSError, zlib.error, scipy.io.matlab.MatReadError)


class MatError(Refused):
    """A .mat file that cannot be used; the message names the file, what is wrong and what to do."""


def read_mat(path: pathlib.Path, name: str, fields: Collection[str] = ()) -> Any:
    """A variable of a .mat file; of structs, and of structs in them, the named fields alone. Raises MatError."""
    if not path.is_file():
        raise MatError(f"{path}: is not there: download it, and unzip what it comes in")
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return _from_hdf5(file, file[name], frozenset(fields))
        return _from_scipy(scipy.io.loadmat(path, variable_names=[name])[name], frozenset(fields))
    except KeyError:
        raise MatError(f"{path}: has no variable {name}: it is another file, download it again") from None
    except _BROKEN as error:
        raise MatError(f"{path}: cannot be read ({reason(error)}): download it again") from None


def _from_scipy(value: np.ndarray, fields: frozenset[str]) -> Any:
    if value.dtype.names:
        names = [name for name in value.dtype.names if name in fields]
        return [{name: _from_scipy(item[name], fields) for name in names} for item in value.ravel(order="F")]
    if value.dtype.kind == "U":
        return "".join(value.ravel())
    if value.dtype.kind == "O":
        return [_from_scipy(item, fields) for item in value.ravel(order="F")]
    return value


def _from_hdf5(file: h5py.File, node: h5py.Group | h5py.Dataset, fields: frozenset[str]) -> Any:
    """Arrays lie transposed there, and all but numbers and text as references; `MATLAB_class` says what they are of,
    but for those in the fields of struct arrays, which have none."""
    if isinstance(node, h5py.Group):
        members = {name: node[name] for name in node if name in fields}
        if any(_is_column(member) for member in members.values()):
            columns = {name: [file[one] for one in member[()].ravel()] for name, member in members.items()}
            rows = zip(*columns.values(), strict=True)
            return [{n: _from_hdf5(file, one, fields) for n, one in zip(columns, row, strict=True)} for row in rows]
        return [{name: _from_hdf5(file, member, fields) for name, member in members.items()}]
    of = node.attrs.get("MATLAB_class", b"").decode()
    if node.attrs.get("MATLAB_empty"):
        return {"char": "", "cell": [], "struct": []}.get(of, np.zeros((0, 0)))
    if node.dtype == h5py.ref_dtype:
        return [_from_hdf5(file, file[one], fields) for one in node[()].ravel()]
    if of == "char":
        return "".join(map(chr, node[()].ravel()))
    return node[()].T


def _is_column(member: h5py.Group | h5py.Dataset) -> bool:
    """Whether a field is that of an array of structs: a reference each."""
    return isinstance(member, h5py.Dataset) and member.dtype == h5py.ref_dtype and "MATLAB_class" not in member.attrs
