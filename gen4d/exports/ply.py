"""PLY files, one per frame, for programs that show and edit point clouds: a folder per sequence.

A vertex has `actor` and `index`, the point's identity, and `label` and `instance` if the source has them. Equal
identities in two frames are the same point.
"""

import json

import numpy as np

from gen4d.sequence import Frame, Sequence

_TYPES = {"f4": "float", "i4": "int", "u1": "uchar"}


def encode(name: str, sequence: Sequence, about: dict) -> dict[str, dict[str, bytes]]:
    """The frames as `<name>/frame_00.ply` and so on, binary, little-endian."""
    return {name: {f"frame_{i:02d}.ply": _ply(frame, about | {"frame": i}) for i, frame in enumerate(sequence)}}


def _ply(frame: Frame, about: dict) -> bytes:
    columns = {axis: frame.point[:, number] for number, axis in enumerate("xyz")}
    columns |= {"actor": frame.actor, "index": frame.point_index}
    columns |= {"label": frame.label, "instance": frame.instance}
    kept = {key: value for key, value in columns.items() if value is not None}
    rows = np.empty(len(frame.point), [(key, value.dtype.newbyteorder("<")) for key, value in kept.items()])
    for key, value in kept.items():
        rows[key] = value
    head = ["ply", "format binary_little_endian 1.0", f"comment gen4d {json.dumps(about, sort_keys=True)}"]
    head += [f"element vertex {len(rows)}"]
    head += [f"property {_TYPES[value.dtype.str[1:]]} {key}" for key, value in kept.items()]
    return "\n".join([*head, "end_header", ""]).encode("ascii") + rows.tobytes()
