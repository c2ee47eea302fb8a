"""The arrays of one HDF5 shard, as `gen4d export` writes it."""

import os
import pathlib

import h5py
import numpy as np

from gen4d.shards.format import (
    ARRAYS,
    HDF5_ATTRIBUTES,
    FormatError,
    check_version,
    is_table,
    read_frames,
    row_shape,
    unseal,
)
from gen4d.shards.zarr_reader import StoredArray, check_rows, parse_json

_MAX_ATTRIBUTES = 4 << 20
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_BROKEN = (RuntimeError, KeyError, ValueError, TypeError, AttributeError)  # what h5py raises about broken metadata
_RESTORE = "restore the file from a copy or export again"


class Hdf5Shard:
    """The arrays of an exported shard, with the interface of tables.Shard. Opened anew in every process.

    Raises FormatError where the file is not one, links to others or stores data outside itself.
    """

    def __init__(self, path: pathlib.Path):
        self.path, self.where, self._pid, self._file = path, str(path), None, None
        file = self._opened()
        try:
            self.attributes = self._read_attributes(file)
            check_version(self.attributes, self.where)
            self.frames = read_frames(self.attributes, self.where)
            self.arrays = {
                name: self._describe(file, name)
                for name, spec in ARRAYS.items()
                if not (spec.optional and name not in file)
            }
        except FormatError:
            raise
        except (OSError, *_BROKEN) as error:
            raise FormatError(f"{self.where}: not a whole HDF5 file ({error}); {_RESTORE}") from None
        self.tables = {name: self.read(name, 0, self.length(name)) for name in self.arrays if is_table(name)}

    def _opened(self) -> h5py.File:
        if self._pid != os.getpid():
            if not self.path.is_file() and self.path.exists():
                raise FormatError(f"{self.where}: not a whole HDF5 file, but no file at all; {_RESTORE}")
            try:
                self._file = h5py.File(self.path, "r")
            except FileNotFoundError:
                raise FormatError(f"{self.where}: the shard is missing; {_RESTORE}") from None
            except (OSError, *_BROKEN) as error:
                raise FormatError(f"{self.where}: not a whole HDF5 file ({error}); {_RESTORE}") from None
            self._pid = os.getpid()
        return self._file

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._pid == os.getpid():
            self._file.close()
        self._pid = None

    def _data(self, file: h5py.File, name: str) -> h5py.Dataset:
        for end in range(1, name.count("/") + 2):
            part = "/".join(name.split("/")[:end])
            if not isinstance(file.get(part, getlink=True), h5py.HardLink):
                raise FormatError(f"{self.where}: {part} is missing or a link, which gen4d does not write")
        data = file[name]
        if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
            raise FormatError(f"{self.where}: {name} stores its data elsewhere, which gen4d does not write")
        return data

    def _read_attributes(self, file: h5py.File) -> dict:
        data = self._data(file, HDF5_ATTRIBUTES)
        if data.dtype.kind != "S" or data.shape != () or data.dtype.itemsize > _MAX_ATTRIBUTES:
            raise FormatError(f"{self.where}: {HDF5_ATTRIBUTES} is not a text of at most {_MAX_ATTRIBUTES} bytes")
        text = bytes(data[()])
        parse_json(text, f"{self.where}: {HDF5_ATTRIBUTES}")
        return unseal(text, f"{self.where}: {HDF5_ATTRIBUTES}")

    def _describe(self, file: h5py.File, name: str) -> StoredArray:
        data, spec = self._data(file, name), ARRAYS[name]
        if data.dtype != np.dtype(spec.dtype) or data.shape[1:] != row_shape(spec, self.frames) or data.chunks is None:
            raise FormatError(
                f"{self.where}: {name} has type {data.dtype}, shape {data.shape}: not as the format has it"
            )
        filters = {
            data.id.get_create_plist().get_filter(i)[0] for i in range(data.id.get_create_plist().get_nfilters())
        }
        if not {h5py.h5z.FILTER_FLETCHER32} <= filters <= _FILTERS:
            listed = ", ".join(map(str, sorted(filters))) or "none"
            raise FormatError(f"{self.where}: {name} has filters {listed}: deflate, shuffle, fletcher32 are read")
        rows, chunks = data.chunks[0], data.id.get_num_chunks()
        if rows > 4 * spec.chunk or data.chunks[1:] != data.shape[1:] or chunks != -(-data.shape[0] // rows):
            stored = f"{chunks} chunks of {data.chunks} for shape {data.shape}"
            raise FormatError(f"{self.where}: {name} has {stored}: not all it should have; {_RESTORE}")
        return StoredArray(data.dtype, data.shape, data.chunks)

    def length(self, name: str) -> int:
        """Rows of an array."""
        return self.arrays[name].shape[0]

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of an array. Raises FormatError where they do not exist or a chunk is damaged."""
        check_rows(self.where, name, self.arrays[name], start, stop)
        try:
            return self._opened()[name][start:stop]
        except (OSError, *_BROKEN) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self.where}: {name} is damaged ({error}); {_RESTORE}") from None
