"""The same data set in HDF5, for those who read with h5py: the same names, types and rules, one file a shard."""

import hashlib
import pathlib
from collections.abc import Iterator

from gen4d import files
from gen4d.exports.sequences import ExportError, check_note
from gen4d.shards.dataset import Dataset
from gen4d.shards.format import HDF5_SUFFIX, SHARD_SUFFIX, seal
from gen4d.shards.hdf5_writer import hdf5_bytes
from gen4d.shards.manifest import CARD, find_sidecar, read_sidecar, sidecar_path
from gen4d.shards.tables import Tables


def export_hdf5(dataset: Dataset, out: pathlib.Path, pairs: bool = False) -> Iterator[int]:
    """Write the data set to the folder `out` in HDF5, with fletcher32 checksums; yields the number of each shard.

    `pairs` adds explicit pair lists where the data set has none. Shards that an interrupted export of the same data set
    left there are kept. Raises ExportError where `out` holds anything else, BusyError where another one writes there.
    """
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file: give a folder")
    files.make_folder(out)
    with files.locked(out):
        yield from _export(dataset, out, {"source": dataset.digest, "pairs": pairs})


def _export(dataset: Dataset, out: pathlib.Path, what: dict) -> Iterator[int]:
    names = [entry["file"].replace(SHARD_SUFFIX, HDF5_SUFFIX) for entry in dataset.manifest["shards"]]
    _check_folder(out, names, what)
    for path in [*files.leftovers(out), *files.leftovers(out / "shards")]:
        files.remove(path)
    if not (out / "export.json").exists():
        files.write(out / "export.json", seal(what))
    files.make_folder(out / "shards")
    entries = []
    for number, name in enumerate(names):
        done = find_sidecar(out, number)
        sidecar = done[0] if done else _export_shard(dataset, out, number, name, what["pairs"])
        described = {key: sidecar[key] for key in ("file", "bytes", "content_sha256")}
        described["sidecar_sha256"] = hashlib.sha256(seal(sidecar)).hexdigest()
        entries.append(dataset.manifest["shards"][number] | described)
        yield number
    totals = dataset.manifest["totals"] | {"bytes": sum(entry["bytes"] for entry in entries)}
    content = seal(dataset.manifest | {"shards": entries, "totals": totals, "exported": what})
    if not (out / "dataset.json").exists():
        files.write(out / "dataset.json", content)


def _export_shard(dataset: Dataset, out: pathlib.Path, number: int, name: str, pairs: bool) -> dict:
    entry = dataset.manifest["shards"][number]
    tables = Tables(dataset.home.file(f"shards/{entry['file']}", entry["bytes"]))
    try:
        content = hdf5_bytes(tables, pairs)
    finally:
        tables.shard.close()
    described = {"file": name, "bytes": len(content), "content_sha256": hashlib.sha256(content).hexdigest()}
    sidecar = read_sidecar(dataset.home, number) | described
    files.write(out / "shards" / name, content)
    files.write(sidecar_path(out, number), seal(sidecar))
    return sidecar


def _check_folder(out: pathlib.Path, names: list[str], what: dict) -> None:
    known = {*names, *(sidecar_path(out, number).name for number in range(len(names))), "shards", "build.lock"}
    known |= {"export.json", "dataset.json"}
    every = [*out.iterdir(), *((out / "shards").iterdir() if (out / "shards").is_dir() else ())]
    inside = [path for path in every if path.name not in CARD and not files.is_litter(path.name)]
    odd = sorted(path.name for path in inside if path.name not in known and path.suffix != ".tmp")
    if odd:
        raise ExportError(f"{out}: holds other files ({odd[0]}, {len(odd)} in all): give an empty folder")
    if not check_note(out, what) and any(item.name not in ("build.lock",) and item.suffix != ".tmp" for item in inside):
        raise ExportError(f"{out}: holds another data set: give an empty folder")
