"""Parametric furniture as CAD models on disk, in ModelNet's layout and with its oddities.

Units and origin are arbitrary, meshes are joined parts or triangle soups and hardly ever watertight, headers may be
fused with their counts, lines may end in CRLF, comments and blank lines occur, and so do triangles without area or
given twice.
"""

import numpy as np

from gen4d.samples.draws import chance, keyed, pick
from gen4d.samples.objects import sanitary, seats, storage, tables
from gen4d.samples.objects.solids import Solid, join, place

SHAPE_STYLES = {
    "bathtub": sanitary.BATHTUBS,
    "chair": tuple(style for style in seats.CHAIRS if style is not seats.stool),
    "desk": tables.DESKS,
    "dresser": (storage.dresser,),
    "night_stand": (storage.night_stand,),
    "sofa": seats.SOFAS,
    "table": (*tables.TABLES, tables.conference_table),
    "toilet": (sanitary.toilet,),
}
_TEST_EVERY = 5  # every fifth shape of a class is for testing


def shape_path(class_name: str, index: int) -> str:
    """Where shape `index` of a class lies below the folder of shapes."""
    part = "test" if index % _TEST_EVERY == _TEST_EVERY - 1 else "train"
    return f"{class_name}/{part}/{class_name}_{index + 1:04d}.off"


def shape_text(seed: int, class_name: str, index: int) -> bytes:
    """The OFF file of shape `index` of a class: the same whatever other shapes are made."""
    rng = keyed(seed, "shape", class_name, index)
    piece = pick(rng, SHAPE_STYLES[class_name])(rng)
    mesh = place(
        join(part.mesh for part in piece.all()),
        (0, 0, 0),
        np.pi / 2 * (int(rng.integers(4)) if chance(rng, 0.3) else 0),
    )
    turn = (
        list(SHAPE_STYLES).index(class_name) + index
    )  # so that every class shows every oddity, however few shapes are made
    point, face = _worn(rng, mesh, soup=turn % 2 == 1, degenerate=turn % 4 == 2)
    scale = 10.0 ** rng.uniform(-0.5, 2.7)
    offset = rng.uniform(-2, 2, 3) * np.ptp(mesh.point, axis=0) * (chance(rng, 0.7))
    return off_text(
        (np.round(point, 6) + offset) * scale, face, fused=turn % 3 == 0, crlf=turn % 4 == 1, commented=turn % 5 == 2
    )


def _worn(rng: np.random.Generator, mesh: Solid, soup: bool, degenerate: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with faces shuffled, some missing, some inside out; as a soup of triangles, or with useless faces."""
    missing = len(mesh.face) // 60 + 1 if chance(rng, 0.85) else 0
    face = mesh.face[rng.permutation(len(mesh.face))[missing:]]
    inverted = rng.random(len(face)) < 0.1
    face[inverted] = face[inverted][:, ::-1]
    if soup:
        return mesh.point[face.ravel()], np.arange(3 * len(face), dtype=np.int32).reshape(-1, 3)
    if degenerate:
        useless = face[:3].copy()
        useless[0, 1] = useless[0, 0]
        face = np.vstack([face, useless, face[-2:]])
    return mesh.point, face


def off_text(
    point: np.ndarray, face: np.ndarray, fused: bool = False, crlf: bool = False, commented: bool = False
) -> bytes:
    """OFF text, perhaps with one of the odd headers, comments or line ends seen in ModelNet."""
    counts = f"{len(point)} {len(face)} 0"
    lines = [f"OFF{counts}"] if fused else ["OFF", counts]
    if commented:
        lines.insert(1, "# parametric furniture")
        lines.append("")
    lines += [f"{x:.6g} {y:.6g} {z:.6g}" for x, y, z in point.tolist()]
    lines += [f"3 {a} {b} {c}" for a, b, c in face.tolist()]
    return (("\r\n" if crlf else "\n").join(lines) + ("\r\n" if crlf else "\n")).encode()
