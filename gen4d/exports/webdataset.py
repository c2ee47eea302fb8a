"""Tar files that `webdataset` and Hugging Face's `datasets` stream: the files of a sample share all before the dot."""

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping

from gen4d.exports.pointcept import npy
from gen4d.sequence import Sequence

_BLOCK = 512


def encode(name: str, sequence: Sequence, about: dict) -> dict[str, bytes]:
    """A sample: `<name>.json`, what the sequence is, and `<name>.<array>.npy` for each of `Sequence.arrays`."""
    arrays = {f"{name}.{key}.npy": npy(value) for key, value in sequence.arrays().items()}
    return {f"{name}.json": json.dumps(about, sort_keys=True).encode(), **arrays}


def tar(samples: Iterable[Mapping[str, bytes]]) -> Iterator[bytes]:
    """The pieces of a tar of some samples, of which one at a time is in memory."""
    for sample in samples:
        for name, content in sample.items():
            header = tarfile.TarInfo(name)  # of 1970, mode 644, nobody's
            header.size = len(content)
            yield header.tobuf(tarfile.PAX_FORMAT)
            yield content
            yield bytes(-len(content) % _BLOCK)
    yield bytes(2 * _BLOCK)
