"""The laws of a stored data set, read with zarr and numpy alone and checked from the points themselves.

Nothing here is shared with the generator: not its code, not its order of work, and not its constants, which stand here
once more as the paper and the conventions give them. A law that does not hold raises `Broken`, which names the
sequence, the law and the figure. Figures that went through float32 have its rounding as tolerance.
"""

import itertools
import json
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import zarr

VOXEL_M, CELL_M = 0.02, 0.10
CEILING_M, NEAR_FLOOR_M, CLOSE_CELLS = 2.0, 0.20, 5
STEP_MIN_M, STEP_MAX_M, TURN_MAX_RAD = 0.30, 0.90, math.radians(150)
KEEP, COMMON_SHARE, FRAME_SHARE = 0.95, 0.30, 0.50
SHAPE_POINTS = 1000
_SLACK = 1e-4  # metres or radians: float32 at 100 m is exact to 4e-6 m
_RIGID = 1e-6  # float32 entries are exact to 6e-8, so a product of two rotations to 4e-7
_SIGMAS = 6  # of a binomial count: 4000 counts pass with a chance of 1 - 1e-5


class Broken(AssertionError):
    """A law that does not hold."""


class Shard(NamedTuple):
    """One shard, whole, in memory."""

    table: dict[str, np.ndarray]
    scans: list[str]
    shapes: list[str]
    classes: list[str]
    frames: int


class Source(NamedTuple):
    """What a scan was made of, read by the caller without gen4d."""

    point: np.ndarray  # (V, 3) float32: all rows of the points file, in file order, as they are there
    label: np.ndarray | None = None  # (V,) labels of the rows


class Report(NamedTuple):
    """How much was checked."""

    scans: int
    sequences: int
    pairs: int  # corresponding points


def demand(holds, where: str, law: str, figure=None) -> None:
    """Raise Broken unless `holds`."""
    if not holds:
        raise Broken(f"{where}: {law}" + ("" if figure is None else f": {figure}"))


def read_shard(path: pathlib.Path) -> Shard:
    """All arrays of a shard, by name, through zarr."""
    group = zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")
    table = {
        f"{name}/{part}": array[:] for name, inner in group.groups() for part, array in inner.arrays()
    }  # fmt: skip
    return Shard(table, *(list(group.attrs[name]) for name in ("scans", "shapes", "classes")), group.attrs["frames"])


def check_dataset(
    folder: pathlib.Path,
    source_of: Callable[[str], Source],
    pairs_of: Callable[[int, int, int], tuple[np.ndarray, np.ndarray]] | None = None,
) -> Report:
    """Check every scan and every sequence of a data set. `pairs_of(sequence, i, j)` gives a reader's correspondences,
    which must be the same as the join of identities, as stored pair lists must. Raises Broken at the first violation.
    """
    manifest = json.loads((folder / "dataset.json").read_bytes())
    scans, sequences, pairs = 0, 0, 0
    for entry in manifest["shards"]:
        shard = read_shard(folder / "shards" / entry["file"])
        demand([name for name, _ in entry["scans"]] == shard.scans, entry["file"], "holds the scans that it should")
        for scan, name in enumerate(shard.scans):
            check_scan(shard, scan, source_of(name))
        for row in range(len(shard.table["sequence/k"])):
            read = pairs_of and (lambda i, j, number=sequences + row: pairs_of(number, i, j))
            pairs += check_sequence(shard, row, read)
        scans, sequences = scans + len(shard.scans), sequences + len(shard.table["sequence/k"])
    demand(sequences == manifest["totals"]["sequences"], str(folder), "totals count the sequences", sequences)
    return Report(scans, sequences, pairs)


# Scans


def cloud_rows(shard: Shard, cloud: int) -> slice:
    """Rows of a cloud in the per-point arrays."""
    start = shard.table["cloud/start"]
    return slice(int(start[cloud]), int(start[cloud + 1]))


def check_scan(shard: Shard, scan: int, source: Source) -> None:
    """The laws of one scan: its points, their order, the floor and the plan of free cells."""
    table, where = shard.table, shard.scans[scan]
    rows = cloud_rows(shard, int(table["scan/cloud"][scan]))
    point, vertex = table["cloud/point"][rows], table["cloud/vertex"][rows]
    finite = np.isfinite(source.point).all(axis=1)
    demand(table["scan/source_points"][scan] == finite.sum(), where, "counts the finite points of its file")
    demand(table["scan/dropped"][scan] == (~finite).sum(), where, "counts the points that are not finite")
    demand(len(np.unique(vertex)) == len(vertex) and finite[vertex].all(), where, "takes each vertex once")
    check_unmoved(where, point, source.point[vertex], table["scan/transform"][scan])
    if source.label is not None:
        demand((table["cloud/label"][rows] == source.label[vertex]).all(), where, "labels are those of the vertices")
    check_thinned(where, point, vertex, source.point, table["scan/transform"][scan])
    floor_m = float(table["scan/floor_m"][scan])
    demand(abs(find_floor(point) - floor_m) <= 0.02, where, "the floor's height is right to 2 cm", floor_m)
    check_plan(shard, scan, point)


def check_unmoved(where: str, point, original, transform) -> None:
    """Points lie where their vertices do: bit for bit, or where the stored transform puts them, to one rounding."""
    if np.array_equal(transform, np.eye(4)):
        demand(point.tobytes() == original.tobytes(), where, "points are unmoved, bit for bit")
        return
    turn, shift = transform[:3, :3], transform[:3, 3]
    demand(np.abs(turn @ turn.T - np.eye(3)).max() < 1e-12, where, "its transform is rigid")
    demand(abs(np.linalg.det(turn) - 1) < 1e-12, where, "its transform mirrors nothing")
    moved = original.astype(np.float64) @ turn.T + shift
    gap = np.abs(moved - point)
    demand((gap <= np.spacing(np.abs(point)) * 0.75 + 1e-12).all(), where, "points are moved exactly", gap.max())


def voxel_of(point) -> np.ndarray:
    """Voxel (N, 3) int64 of points (N, 3) float32; voxels of 2 cm have corners at multiples of their size."""
    return np.floor(point.astype(np.float64) * (1 / VOXEL_M)).astype(np.int64)


def one_number(voxel) -> np.ndarray:
    """A number (N,) of its own for every voxel, in row order of the axes."""
    return ((voxel[:, 0] + 2**20) << 42) | ((voxel[:, 1] + 2**20) << 21) | (voxel[:, 2] + 2**20)


def check_thinned(where: str, point, vertex, source, transform) -> None:
    """One point a voxel, none missing, the first in file order, and sorted along the Morton curve."""
    voxel = voxel_of(point)
    number = one_number(voxel)
    demand(len(np.unique(number)) == len(number), where, "has one point a voxel")
    check_morton(where, voxel)
    row = np.flatnonzero(np.isfinite(source).all(axis=1))
    if np.array_equal(transform, np.eye(4)):
        _, first = np.unique(one_number(voxel_of(source[row])), return_index=True)
        demand(np.array_equal(np.sort(row[first]), np.sort(vertex)), where, "keeps the first vertex of every voxel")
    else:  # points on the faces of voxels may round to either side
        moved = (source[row].astype(np.float64) @ transform[:3, :3].T + transform[:3, 3]).astype(np.float32)
        share = len(np.setxor1d(one_number(voxel_of(moved)), number)) / len(number)
        demand(share < 1e-3, where, "keeps a vertex of every voxel", share)


def check_morton(where: str, voxel) -> None:
    """Of two neighbours in the order, the lower is the one that is lower on the axis where they differ most.

    That axis is the one whose exclusive or has the highest bit, z before y before x among equals.
    """
    before, after = voxel[:-1] + 2**20, voxel[1:] + 2**20
    x, y, z = (before ^ after).T
    axis = np.where(lower_bit(y, x), 0, 1)
    axis = np.where(lower_bit(z, np.where(axis == 1, y, x)), axis, 2)
    rows = np.arange(len(axis))
    demand((before[rows, axis] < after[rows, axis]).all(), where, "is in Morton order")


def lower_bit(one, other) -> np.ndarray:
    """Whether the highest bit of one number is lower than that of another."""
    return (one < other) & (one < (one ^ other))


def columns_of(point) -> np.ndarray:
    """Column (N, 2) int64 of points, on a grid of 10 cm cells with corners at multiples of their size."""
    return np.floor(point[:, :2].astype(np.float64) * (1 / CELL_M)).astype(np.int64)


def find_floor(point) -> float:
    """Height of the floor in metres: the median of the lowest window of 10 cm that holds many columns' lowest points.

    Many: at least a quarter of the fullest window, and more than the windows 4 cm higher and lower.
    """
    column = columns_of(point)
    order = np.lexsort((point[:, 2], column[:, 1], column[:, 0]))
    first = np.r_[True, (np.diff(column[order], axis=0) != 0).any(axis=1)]
    lowest = np.sort(point[order[first], 2].astype(np.float64))
    start = np.arange(lowest[0] - 0.1, lowest[-1], 0.01)
    held = np.searchsorted(lowest, start + 0.1) - np.searchsorted(lowest, start)
    padded = np.pad(held, 4)
    peak = [padded[4 + d : len(padded) - 4 + d] for d in (-4, -3, -2, -1, 1, 2, 3, 4)]
    place = start[(held >= 0.25 * held.max()) & (held >= np.max(peak, axis=0))][0]
    return float(np.median(lowest[(lowest >= place) & (lowest < place + 0.1)]))


def plan_of(shard: Shard, scan: int) -> tuple[np.ndarray, np.ndarray]:
    """The stored plan: valid cells (nx, ny) bool, and the index (2,) of the first cell."""
    table = shard.table
    start, stop = table["scan/valid_start"][scan : scan + 2]
    shape = tuple(table["scan/cells"][scan].tolist())
    bits = np.unpackbits(table["scan/valid"][start:stop])
    demand(not bits[math.prod(shape) :].any(), shard.scans[scan], "the padding bits of its plan are 0")
    return bits[: math.prod(shape)].reshape(shape).astype(bool), table["scan/origin"][scan].astype(np.int64)


def check_plan(shard: Shard, scan: int, point) -> None:
    """The stored plan is the one that the points have, and its widest free disc too."""
    where, floor_m = shard.scans[scan], float(shard.table["scan/floor_m"][scan])
    valid, origin = plan_of(shard, scan)
    column = columns_of(point)
    demand((column.min(axis=0) == origin).all(), where, "its plan starts at the first column")
    demand((column.max(axis=0) - origin + 1 == valid.shape).all(), where, "its plan ends at the last column")
    expected, footprint = find_valid(point, column - origin, valid.shape, floor_m)
    demand(np.array_equal(valid, expected), where, "its plan is the points' own", (valid != expected).sum())
    demand(not (valid & ~footprint).any(), where, "no valid cell lies outside the footprint")
    seen = seen_columns(point, column - origin, valid.shape, floor_m)
    demand(not (valid & ~near(seen, CLOSE_CELLS)).any(), where, "no valid cell is far from a seen one")
    if "scan/unseen" in shard.table and valid.any():
        share = (valid & ~seen).sum() / valid.sum()
        demand(abs(shard.table["scan/unseen"][scan] - share) < 1e-12, where, "its unseen share is the plan's", share)
    free_m = float(shard.table["scan/free_m"][scan])
    gap = wall_gap(valid, (np.argwhere(valid) + 0.5) * CELL_M) if valid.any() else np.zeros(1)
    demand(abs(gap.max() - free_m) < 1e-9, where, "its widest free disc is the plan's", (gap.max(), free_m))


def find_valid(point, column, shape, floor_m):
    """Valid cells and footprint, both (nx, ny), of points: DESIGN's rule, counted with sets of (column, layer)."""
    z = point[:, 2].astype(np.float64)
    low = z <= floor_m + CEILING_M
    cell = column[low, 0] * shape[1] + column[low, 1]
    layer = np.maximum(np.floor((z[low] - floor_m) / CELL_M + 0.5), -16).astype(np.int64)
    occupied = np.unique(cell * 100 + layer + 50) // 100
    layers = np.bincount(occupied, minlength=math.prod(shape)).reshape(shape)
    highest = np.full(math.prod(shape), -np.inf)
    order = np.argsort(z[low], kind="stable")
    highest[cell[order]] = z[low][order]
    footprint = find_footprint(layers > 0)
    bare = (layers == 1) & (np.abs(highest.reshape(shape) - floor_m) <= NEAR_FLOOR_M)
    return np.where(layers > 0, bare, footprint), footprint


def find_footprint(observed):
    """All columns (nx, ny) but those in a disc of 0.5 m, around any column, in which none was observed."""
    reach = CLOSE_CELLS
    wide = np.pad(observed, reach + 1)
    empty = ~near(wide, reach)
    inner = slice(reach + 1, -reach - 1)
    return ~near(empty, reach)[inner, inner]


def near(cells, reach: int):
    """The cells (nx, ny) whose centres are at most `reach` cells from the centre of one of some cells."""
    wide, found = np.pad(cells, reach), np.zeros_like(cells)
    for x, y in itertools.product(range(2 * reach + 1), repeat=2):
        if (x - reach) ** 2 + (y - reach) ** 2 <= reach**2:
            found |= wide[x : x + found.shape[0], y : y + found.shape[1]]
    return found


def seen_columns(point, column, shape, floor_m: float) -> np.ndarray:
    """The columns (nx, ny) that hold a point below the height of ceilings."""
    seen = np.zeros(shape, bool)
    seen[tuple(column[point[:, 2].astype(np.float64) <= floor_m + CEILING_M].T)] = True
    return seen


def wall_gap(valid, place) -> np.ndarray:
    """Distance (N,) in metres from places (N, 2), in metres from the plan's corner, to the nearest invalid cell.

    Cells are closed squares, and all around the plan are invalid ones. Only those beside valid cells can be nearest to
    a place in a valid cell; a place in an invalid cell has the gap 0.
    """
    wide = np.pad(valid, 1)
    beside = np.zeros_like(wide)
    for x, y in itertools.product((-1, 0, 1), repeat=2):
        beside |= np.roll(wide, (x, y), (0, 1))
    wall = (np.argwhere(beside & ~wide) - 1) * CELL_M
    gap = np.empty(len(place))
    for i in range(0, len(place), 512):
        part = place[i : i + 512, None]
        gap[i : i + 512] = np.hypot(*np.maximum(np.maximum(wall - part, part - wall - CELL_M), 0).T).min(axis=0)
    cell = np.clip(np.floor(place / CELL_M).astype(int) + 1, 0, np.array(wide.shape) - 1)
    return np.where(wide[cell[:, 0], cell[:, 1]], gap, 0.0)


# Sequences


def check_sequence(shard: Shard, row: int, pairs_of=None) -> int:
    """The laws of one sequence. Returns how many corresponding points its frames have."""
    table = shard.table
    scan = int(table["sequence/scan"][row])
    where = f"{shard.scans[scan]}/{int(table['sequence/k'][row]):03d}"
    actors = range(*table["actor/start"][row : row + 2].tolist())
    roles = table["actor/role"][actors.start : actors.stop].tolist()
    demand(roles == [0] + [1] * (len(roles) - 1) and len(roles) > 1, where, "is a scan and a moving shape")
    demand(table["actor/cloud"][actors[0]] == table["scan/cloud"][scan], where, "its static actor is its scan")
    demand((table["actor/pose"][actors[0]] == np.eye(4)).all(), where, "the scan does not move, exactly")
    movers = movers_of(shard, row, where)
    masks = [mask_of(shard, actor, where) for actor in actors]
    for mover in movers:
        check_mover(where, shard, scan, mover)
    check_apart(where, movers)
    check_masks(where, masks[0], [np.hstack([masks[a - actors[0]] for a in mover.actors]) for mover in movers])
    return check_pairs(where, shard, row, masks, pairs_of)


class Moving(NamedTuple):
    """A shape that moves: one actor, or its base and its other parts."""

    actors: list[int]
    pose: np.ndarray  # (t, 4, 4) of the base
    height_m: float
    radius_m: float


def movers_of(shard: Shard, row: int, where: str) -> list[Moving]:
    """What moves in a sequence, by its own tables or, where there is one shape, by the sequence's."""
    table = shard.table
    actors = range(*table["actor/start"][row : row + 2].tolist())[1:]
    if "mover/start" not in table:
        numbers, group, rows = np.zeros(len(actors), int), "sequence", [row]
    else:
        numbers, group = table["actor/mover"][actors.start : actors.stop], "mover"
        demand(table["actor/mover"][actors.start - 1] == -1, where, "its scan is no shape that moves")
        rows = range(*table["mover/start"][row : row + 2].tolist())
        first = all(table[f"sequence/{n}"][row] == table[f"mover/{n}"][rows[0]] for n in ("shape", "class", "radius_m"))
        demand(first, where, "its first shape is in the tables of sequences too")
    demand(np.unique(numbers).tolist() == list(range(len(rows))), where, "every shape has its actors")
    demand((np.diff(numbers) >= 0).all(), where, "its actors are in the order of its shapes")
    of = [[actor for actor, number in zip(actors, numbers, strict=True) if number == n] for n in range(len(rows))]
    pose = [table["actor/pose"][members[0]].astype(np.float64) for members in of]
    height, radius = ([float(table[f"{group}/{name}"][r]) for r in rows] for name in ("height_m", "radius_m"))
    return [Moving(*one) for one in zip(of, pose, height, radius, strict=True)]


def check_mover(where: str, shard: Shard, scan: int, mover: Moving) -> None:
    """The laws of one shape: its points, its way, its place, and that its parts stay within its disc."""
    table = shard.table
    parts = [cloud_rows(shard, int(table["actor/cloud"][actor])) for actor in mover.actors]
    sampled = all((table["cloud/vertex"][rows] == -1).all() for rows in parts)
    count = sum(rows.stop - rows.start for rows in parts)
    demand(sampled and count == SHAPE_POINTS, where, "1000 points are sampled")
    check_poses(where, mover.pose, float(table["scan/floor_m"][scan]))
    check_steps(where, mover.pose)
    point = [table["cloud/point"][rows].astype(np.float64) for rows in parts]
    own = [np.linalg.inv(mover.pose) @ table["actor/pose"][actor] for actor in mover.actors]
    for pose in own:
        check_rigid(where, pose)
    check_stand(where, np.concatenate(point), mover.height_m)
    plan = plan_of(shard, scan)
    for frame in range(shard.frames):
        moved = [p @ o[frame, :3, :3].T + o[frame, :3, 3] for p, o in zip(point, own, strict=True)]
        shape = np.concatenate(moved)
        demand(shape[:, 2].min() >= -2e-5, where, "no part goes below the floor", shape[:, 2].min())
        check_disc(where, *plan, mover.pose[frame : frame + 1], shape, mover.radius_m)


def check_apart(where: str, movers: list[Moving]) -> None:
    """Discs never overlap: at a hundred moments between every two frames, if all go straight and evenly."""
    share = np.linspace(0, 1, 101)[:, None, None]
    way = [m.pose[:-1, :2, 3] * (1 - share) + m.pose[1:, :2, 3] * share for m in movers]
    for i, j in itertools.combinations(range(len(movers)), 2):
        gap = np.hypot(*(way[i] - way[j]).T).min() - movers[i].radius_m - movers[j].radius_m
        demand(gap >= -_SLACK, where, "discs of its shapes never overlap", gap)


def check_rigid(where: str, pose) -> None:
    """Poses (t, 4, 4) turn and shift, and do nothing else."""
    turn = pose[:, :3, :3]
    error = np.abs(turn @ turn.transpose(0, 2, 1) - np.eye(3)).max()
    demand(error <= _RIGID, where, "its transforms are rigid to 1e-6", error)
    demand((np.abs(np.linalg.det(turn) - 1) <= _RIGID).all(), where, "its transforms mirror nothing")
    demand((np.abs(pose[:, 3] - [0, 0, 0, 1]) == 0).all(), where, "the last rows of its transforms are 0 0 0 1")


def check_poses(where: str, pose, floor_m: float) -> None:
    """Poses (t, 4, 4) turn about z alone, rigidly, and set the shape on the floor."""
    check_rigid(where, pose)
    turn = pose[:, :3, :3]
    upright = (turn[:, 2] == [0, 0, 1]).all() and (turn[:, :2, 2] == 0).all()
    demand(upright, where, "it turns about z alone")
    gap = np.abs(pose[:, 2, 3] - floor_m).max()
    demand(gap <= 1e-6, where, "its shape stands at the floor's height", gap)


def check_steps(where: str, pose) -> None:
    """Steps are 30 to 90 cm long, turn by less than 150 degrees, and the shape turns with them."""
    step = np.diff(pose[:, :2, 3], axis=0)
    length = np.hypot(step[:, 0], step[:, 1])
    within = (length >= STEP_MIN_M - _SLACK) & (length <= STEP_MAX_M + _SLACK)
    demand(within.all(), where, "its steps are between 0.30 and 0.90 m", length)
    heading = np.arctan2(step[:, 1], step[:, 0])
    turn = wrap(np.diff(heading))
    demand((np.abs(turn) < TURN_MAX_RAD + _SLACK).all(), where, "its turns are below 150 degrees", np.degrees(turn))
    yaw = np.arctan2(pose[:, 1, 0], pose[:, 0, 0])
    gap = np.abs(wrap(np.diff(yaw) - np.r_[0.0, turn])).max()
    demand(gap < _SLACK, where, "its yaw turns with its heading", gap)


def wrap(angle) -> np.ndarray:
    """Angles in [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def check_stand(where: str, shape, height_m: float) -> None:
    """The shape's points (N, 3) begin at the floor, and are no higher than the shape."""
    low, high = shape[:, 2].min(), shape[:, 2].max()
    demand(low >= -1e-5 and low <= 0.25 * height_m, where, "its shape stands on the floor", low)
    demand(high <= height_m + 1e-5 and high >= 0.75 * height_m, where, "its shape is as high as it says", high)


def check_disc(where: str, valid, origin, pose, shape, radius_m: float) -> None:
    """Every cell that the shape's disc touches is valid, at every step, and the disc holds the shape."""
    reach = float(np.hypot(shape[:, 0], shape[:, 1]).max())
    demand(reach <= radius_m + 1e-5, where, "its disc holds its shape", (reach, radius_m))
    place = pose[:, :2, 3] - origin * CELL_M
    centre = place / CELL_M - 0.5
    demand(np.abs(centre - np.round(centre)).max() * CELL_M < _SLACK, where, "it stands in the middle of cells")
    gap = wall_gap(valid, place)
    demand((gap > 0).all() and gap.min() >= radius_m - _SLACK, where, "its disc lies in valid cells", gap - radius_m)
    for frame in pose:
        moved = shape[:, :2] @ frame[:2, :2].T + frame[:2, 3]
        cell = np.floor(moved / CELL_M).astype(np.int64) - origin
        inside = ((cell >= 0) & (cell < valid.shape)).all(axis=1)
        demand(inside.all() and valid[tuple(cell.T)].all(), where, "its points lie above valid cells")


def mask_of(shard: Shard, actor: int, where: str) -> np.ndarray:
    """Which of an actor's points each frame keeps, (t, N) bool."""
    rows = cloud_rows(shard, int(shard.table["actor/cloud"][actor]))
    count = rows.stop - rows.start
    size = (count + 7) // 8
    start = shard.table["actor/mask_start"][actor]
    plane = np.stack([shard.table["actor/mask"][s : s + size] for s in start.tolist()])
    bits = np.unpackbits(plane, axis=1)
    demand(not bits[:, count:].any(), where, f"the padding bits of actor {actor} are 0")
    return bits[:, :count].astype(bool)


def check_masks(where: str, scan, shapes) -> None:
    """The rules of acceptance hold for masks (t, N) and those of shapes (t, M); every frame samples them anew."""
    for name, mask in (("scan", scan), *(("shape", shape) for shape in shapes)):
        common = mask.all(axis=0).mean()
        demand(common >= COMMON_SHARE, where, f"all frames share 30 % of the {name}", common)
    share = np.hstack([scan, *shapes]).mean(axis=1)
    demand(share.min() >= FRAME_SHARE, where, "every frame keeps half of the points", share)
    for shape in shapes:
        for kept, expected in [*((frame, KEEP) for frame in shape), (shape.all(axis=0), KEEP ** len(shape))]:
            slack = _SIGMAS * math.sqrt(expected * (1 - expected) / shape.shape[1])
            demand(abs(kept.mean() - expected) <= slack, where, "the shape is sampled anew by each frame", kept.mean())
    most = KEEP + _SIGMAS * math.sqrt(KEEP * (1 - KEEP) / scan.shape[1])
    demand(scan.mean(axis=1).max() <= most, where, "every frame samples the scan", scan.mean(axis=1))


def check_pairs(where: str, shard: Shard, row: int, masks, pairs_of) -> int:
    """Pair lists, stored or from a reader, are the join of the identities (actor, index) of each two frames."""
    frames = [identities(masks, frame) for frame in range(shard.frames)]
    numbers = list(itertools.combinations(range(shard.frames), 2))
    total = 0
    for number, (i, j) in enumerate(numbers):
        first, second = join(frames[i], frames[j], sum(mask.shape[1] for mask in masks))
        total += len(first)
        for source, stored in (
            ("stored", stored_pairs(shard, row * len(numbers) + number)),
            ("read", pairs_of and pairs_of(i, j)),
        ):
            if stored is not None:
                same = np.array_equal(stored[0], first) and np.array_equal(stored[1], second)
                demand(same, where, f"the {source} pairs of frames {i} and {j} are the join of their identities")
    if row % 20 == 0:  # the same once more as anybody would write it
        place = {identity: k for k, identity in enumerate(frames[1].tolist())}
        slow = [(k, place[identity]) for k, identity in enumerate(frames[0].tolist()) if identity in place]
        quick = join(frames[0], frames[1], sum(mask.shape[1] for mask in masks))
        demand(slow == list(zip(*(rows.tolist() for rows in quick), strict=True)), where, "the join is the dict's")
    return total


def identities(masks, frame: int) -> np.ndarray:
    """The identity of every point of a frame: actor 0's indices, then actor 1's after all of actor 0's."""
    return np.flatnonzero(np.concatenate([mask[frame] for mask in masks]))


def join(one, other, count: int):
    """Rows of one frame and of another that hold the same identity, by a table of where the other holds it."""
    place = np.full(count, -1)
    place[other] = np.arange(len(other))
    first = np.flatnonzero(place[one] >= 0)
    return first, place[one[first]]


def stored_pairs(shard: Shard, number: int):
    """One stored pair list, or None where there are none."""
    if "pair/start" not in shard.table:
        return None
    start, stop = shard.table["pair/start"][number : number + 2]
    return shard.table["pair/first"][start:stop], shard.table["pair/second"][start:stop]
