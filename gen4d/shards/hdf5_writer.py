"""A shard as an HDF5 file: the same names, types and rules as in Zarr, with fletcher32 checksums."""

import functools

import h5py
import numpy as np

from gen4d.sequence import frame_pairs
from gen4d.shards.format import ARRAYS, HDF5_ATTRIBUTES, row_shape, seal
from gen4d.shards.tables import Tables

_BLOCK = 1 << 20


def hdf5_bytes(tables: Tables, pairs: bool) -> bytes:
    """The shard as an HDF5 file in memory: no times, no links, no external storage, so equal data are equal bytes.

    `pairs` adds explicit pair lists where the shard has none.
    """
    with h5py.File.in_memory(libver=("v110", "v110"), track_order=False) as file:
        for name, array in tables.shard.arrays.items():
            data = _create(file, name, array.shape[0], tables.frames)
            for start in range(0, array.shape[0], _BLOCK):
                stop = min(start + _BLOCK, array.shape[0])
                data[start:stop] = tables.shard.read(name, start, stop)
        if pairs and "pair/start" not in tables.shard.arrays:
            _write_pairs(file, tables)
        file.create_dataset(HDF5_ATTRIBUTES, data=np.bytes_(seal(tables.attributes)), track_times=False)
        file.flush()
        return bytes(file.id.get_file_image())


def _create(file: h5py.File, name: str, rows: int, frames: int) -> h5py.Dataset:
    spec = ARRAYS[name]
    shape = row_shape(spec, frames)
    return file.create_dataset(
        name,
        shape=(rows, *shape),
        maxshape=(None, *shape),
        chunks=(max(1, min(rows, spec.chunk)), *shape),
        dtype=spec.dtype,
        compression="gzip",
        compression_opts=1,
        shuffle=True,
        fletcher32=True,
        track_times=False,
    )


def _write_pairs(file: h5py.File, tables: Tables) -> None:
    first, second = (_create(file, name, ARRAYS[name].chunk, tables.frames) for name in ("pair/first", "pair/second"))
    starts, done = [0], 0
    scan_cloud = functools.lru_cache(1)(tables.cloud)  # sequences of a scan are neighbours
    for row in range(tables.shard.length("sequence/k")):
        sequence = tables.sequence(row, scan_cloud)
        lists = [sequence.correspondences(i, j) for i, j in frame_pairs(tables.frames)]
        starts += (done + np.cumsum([len(rows) for rows, _ in lists])).tolist()
        for column, side in ((first, 0), (second, 1)):
            column.resize(starts[-1], axis=0)
            column[done:] = np.concatenate([rows[side] for rows in lists])
        done = starts[-1]
    for column in (first, second):
        column.resize(done, axis=0)
    _create(file, "pair/start", len(starts), tables.frames)[:] = np.array(starts, np.int64)
