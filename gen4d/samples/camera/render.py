"""Compiled kernels of the simulated scanner: the only file of the samples with `@njit` functions.

Arrays in, arrays filled; no checks and no randomness. Every kernel is serial: results must not depend on the number of
threads. No fastmath: sums would change with the machine.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

_COMPILE = {"cache": True, "nogil": True, "error_model": "numpy"}  # numpy: a division by zero must not cost a branch
BLOCK = 8  # cells along the edge of a block


class Grid(NamedTuple):
    """A sparse grid in blocks, all zero before use. A corner's number is also that of the cell which starts there.

    table: (bx, by, bz) int32, a block's number from 1, 0 = none. slot: (blocks + 1, BLOCK**3) int32, a corner's number
    from 1, 0 = none. count: (2,) int64, corners and blocks so far. Per corner or cell C:
    corner (C, 3) int32, its place; plane (C, 4) float32, the sums of the normals read in the cell and of their products
    with the readings' places in it; seen (C,) int32, how many readings; vote (C, 2) int32, the face that stands for the
    cell by a running majority over objects, and its lead.
    """

    table: np.ndarray
    slot: np.ndarray
    count: np.ndarray
    corner: np.ndarray
    plane: np.ndarray
    seen: np.ndarray
    vote: np.ndarray


@njit(**_COMPILE)
def transform(pose, point, out):
    """out = pose[:, :3] point + pose[:, 3] for every row; written out so that no BLAS decides about the last bit."""
    for i in range(len(point)):
        for axis in range(3):
            out[i, axis] = (
                pose[axis, 0] * point[i, 0] + pose[axis, 1] * point[i, 1] + pose[axis, 2] * point[i, 2] + pose[axis, 3]
            )


@njit(**_COMPILE)
def _edge(low, high, ua, va, ub, vb, sign, v):
    """Narrows the span low..high of image columns to the inner side of one edge at height v."""
    slope = -(vb - va) * sign
    at = ((ub - ua) * (v - va) + ua * (vb - va)) * sign
    if slope > 0:
        low = max(low, -at / slope)
    elif slope < 0:
        high = min(high, -at / slope)
    elif at < 0:
        high = low - 1.0
    return low, high


@njit(**_COMPILE)
def _fill(corner, normal, offset, face, lens, nearness, hit):
    """Rasterises one triangle in front of the camera: 1 / z is linear in the image, the largest wins."""
    focal, cx, cy = lens
    height, width = nearness.shape
    u0, v0 = focal * corner[0, 0] / corner[0, 2] + cx, focal * corner[0, 1] / corner[0, 2] + cy
    u1, v1 = focal * corner[1, 0] / corner[1, 2] + cx, focal * corner[1, 1] / corner[1, 2] + cy
    u2, v2 = focal * corner[2, 0] / corner[2, 2] + cx, focal * corner[2, 1] / corner[2, 2] + cy
    area = (u1 - u0) * (v2 - v0) - (u2 - u0) * (v1 - v0)
    if area == 0.0:
        return
    sign = 1.0 if area > 0 else -1.0
    least_u, most_u = max(min(u0, u1, u2), 0.0), min(max(u0, u1, u2), float(width))
    top, bottom = max(min(v0, v1, v2), 0.0), min(max(v0, v1, v2), float(height))
    step = normal[0] / (focal * offset)
    for row in range(math.ceil(top - 0.5), math.ceil(bottom - 0.5)):
        v = row + 0.5
        low, high = _edge(least_u, most_u, u0, v0, u1, v1, sign, v)
        low, high = _edge(low, high, u1, v1, u2, v2, sign, v)
        low, high = _edge(low, high, u2, v2, u0, v0, sign, v)
        start = (normal[1] * (v - cy) / focal + normal[2] - normal[0] * cx / focal) / offset
        for column in range(math.ceil(low - 0.5), math.ceil(high - 0.5)):
            near = start + step * (column + 0.5)
            if near > nearness[row, column]:
                nearness[row, column] = near
                hit[row, column] = face


@njit(**_COMPILE)
def _clip(triangle, near_m, polygon):
    """Cuts off what lies closer than `near_m`: polygon (4, 3) out, returns its number of corners, 0 to 4."""
    count = 0
    for k in range(3):
        following = (k + 1) % 3
        here, there = triangle[k, 2], triangle[following, 2]
        if here >= near_m:
            for axis in range(3):
                polygon[count, axis] = triangle[k, axis]
            count += 1
        if (here >= near_m) != (there >= near_m):
            share = (near_m - here) / (there - here)
            for axis in range(3):
                polygon[count, axis] = triangle[k, axis] + share * (triangle[following, axis] - triangle[k, axis])
            count += 1
    return count


@njit(**_COMPILE)
def _plane(triangle, normal):
    """The triangle's normal, not of unit length, and the offset of its plane."""
    ax, ay, az = triangle[1, 0] - triangle[0, 0], triangle[1, 1] - triangle[0, 1], triangle[1, 2] - triangle[0, 2]
    bx, by, bz = triangle[2, 0] - triangle[0, 0], triangle[2, 1] - triangle[0, 1], triangle[2, 2] - triangle[0, 2]
    normal[0], normal[1], normal[2] = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    return normal[0] * triangle[0, 0] + normal[1] * triangle[0, 1] + normal[2] * triangle[0, 2]


@njit(**_COMPILE)
def draw(point, face, near_m, lens, nearness, hit):
    """What a camera sees of a triangle mesh, by z-buffer.

    point: (V, 3) in the camera's frame (x right, y down, z forward). face: (F, 3). near_m: clipping distance.
    lens: (focal, centre x, centre y) in pixels. nearness: (H, W) float64, 1 / z, 0 before. hit: (H, W) int32, the
    visible face, -1 before.
    """
    triangle, polygon, corner, normal = np.empty((3, 3)), np.empty((4, 3)), np.empty((3, 3)), np.empty(3)
    for f in range(len(face)):
        for k in range(3):
            for axis in range(3):
                triangle[k, axis] = point[face[f, k], axis]
        count = _clip(triangle, near_m, polygon)
        if count == 0:
            continue
        offset = _plane(triangle, normal)
        if offset == 0.0:
            continue
        for k in range(1, count - 1):
            for axis in range(3):
                corner[0, axis] = polygon[0, axis]
                corner[1, axis], corner[2, axis] = polygon[k, axis], polygon[k + 1, axis]
            _fill(corner, normal, offset, f, lens, nearness, hit)


@njit(**_COMPILE)
def incidence(hit, normal, lens, out):
    """Cosine between the ray and the normal of the surface that it meets, (H, W), 0 where nothing is hit.

    normal: (F, 3) unit normals in the camera's frame.
    """
    focal, cx, cy = lens
    for row in range(hit.shape[0]):
        for column in range(hit.shape[1]):
            f = hit[row, column]
            out[row, column] = 0.0
            if f >= 0:
                x, y = (column + 0.5 - cx) / focal, (row + 0.5 - cy) / focal
                along = normal[f, 0] * x + normal[f, 1] * y + normal[f, 2]
                out[row, column] = abs(along) / math.sqrt(x * x + y * y + 1.0)


@njit(**_COMPILE)
def _find(grid, x, y, z):
    """The number of a grid corner, 0 where it has none."""
    block = grid.table[x // BLOCK, y // BLOCK, z // BLOCK]
    if block == 0:
        return 0
    return grid.slot[block, ((x % BLOCK) * BLOCK + y % BLOCK) * BLOCK + z % BLOCK]


@njit(**_COMPILE)
def _number(grid, x, y, z):
    """The number of a grid corner, which it gets here if it has none."""
    block = grid.table[x // BLOCK, y // BLOCK, z // BLOCK]
    if block == 0:
        grid.count[1] += 1
        block = grid.count[1]
        grid.table[x // BLOCK, y // BLOCK, z // BLOCK] = block
    local = ((x % BLOCK) * BLOCK + y % BLOCK) * BLOCK + z % BLOCK
    row = grid.slot[block, local]
    if row == 0:
        grid.count[0] += 1
        row = grid.count[0]
        grid.slot[block, local] = row
        grid.corner[row, 0], grid.corner[row, 1], grid.corner[row, 2] = x, y, z
    return row


@njit(**_COMPILE)
def gather(depth, hit, pose, normal, owner, lens, grid):
    """Adds a depth image to the grid: every reading's tangent plane goes to the cell that holds it.

    depth: (H, W) metres, 0 = no reading. pose: (3, 4) camera to grid, in cells. normal: (F, 3) unit normals in the
    grid's frame. owner: (F,) int32, the object of a face. Readings outside the grid are left out.
    """
    focal, cx, cy = lens
    place = np.empty(3)
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            z = depth[row, column]
            if z <= 0:
                continue
            x, y, f = (column + 0.5 - cx) / focal * z, (row + 0.5 - cy) / focal * z, hit[row, column]
            towards, inside = 0.0, True
            for axis in range(3):
                place[axis] = pose[axis, 0] * x + pose[axis, 1] * y + pose[axis, 2] * z + pose[axis, 3]
                towards += normal[f, axis] * (pose[axis, 3] - place[axis])
                inside = inside and 1.0 <= place[axis] < grid.table.shape[axis] * BLOCK - 2.0
            if not inside:
                continue
            cell = _number(grid, int(place[0]), int(place[1]), int(place[2]))
            side = 1.0 if towards >= 0 else -1.0
            for axis in range(3):
                grid.plane[cell, axis] += side * normal[f, axis]
                grid.plane[cell, 3] += side * normal[f, axis] * (place[axis] - int(place[axis]))
            grid.seen[cell] += 1
            if grid.vote[cell, 1] == 0:
                grid.vote[cell, 0], grid.vote[cell, 1] = f, 1
            else:
                grid.vote[cell, 1] += 1 if owner[grid.vote[cell, 0]] == owner[f] else -1


@njit(**_COMPILE)
def spread(grid, value, weight):
    """Averages the signed distances, in cells, of every grid corner to the planes of the eight cells around it.

    value, weight: (C,) float32, zero before. Corners that are no cells are numbered here.
    """
    for cell in range(1, grid.count[0] + 1):
        for dx in range(2):
            for dy in range(2):
                for dz in range(2):
                    row = _number(grid, grid.corner[cell, 0] + dx, grid.corner[cell, 1] + dy, grid.corner[cell, 2] + dz)
                    value[row] += grid.plane[cell, 0] * dx + grid.plane[cell, 1] * dy + grid.plane[cell, 2] * dz
                    value[row] -= grid.plane[cell, 3]
                    weight[row] += grid.seen[cell]
    for row in range(1, grid.count[0] + 1):
        value[row] /= weight[row]


@njit(**_COMPILE)
def _cross(rows, value, place):
    """Mean of the zero crossings on the twelve edges of a cell, in cells from its first corner; returns their number.

    rows: (8,) the corners' numbers, index 4 dx + 2 dy + dz.
    """
    count = 0
    for k in range(3):
        place[k] = 0.0
    for c in range(8):
        for axis in range(3):
            step = 4 >> axis
            if c & step:
                continue
            a, b = value[rows[c]], value[rows[c + step]]
            if (a < 0) != (b < 0):
                for k in range(3):
                    place[k] += 1.0 if c & (4 >> k) else 0.0
                place[axis] += a / (a - b)
                count += 1
    for k in range(3):
        place[k] /= max(count, 1)
    return count


@njit(**_COMPILE)
def _witness(grid, row, least):
    """The cell that speaks for a cell: itself where it has a reading, else the most read of its six neighbours.

    0 where all seven together have fewer than `least` readings.
    """
    x, y, z = grid.corner[row, 0], grid.corner[row, 1], grid.corner[row, 2]
    best, readings = row, grid.seen[row]
    for k in range(6):
        step, axis = 2 * (k & 1) - 1, k >> 1
        near = _find(grid, x + step * (axis == 0), y + step * (axis == 1), z + step * (axis == 2))
        readings += grid.seen[near]
        if grid.seen[row] == 0 and grid.seen[near] > grid.seen[best]:
            best = near
    return best if readings >= least and grid.seen[best] > 0 else 0


@njit(**_COMPILE)
def net_vertices(grid, value, least, place, cell, vertex):
    """One vertex in every cell whose eight corners are known and differ in sign: surface nets. Returns their number.

    A cell without readings of its own closes the gap between its neighbours where a surface passes from one layer of
    cells to the next. value: (C,) signed distance per corner. Out: place (n, 3) in cells, cell (n,) the cell whose vote
    counts, vertex (C,) a cell's vertex or -1.
    """
    rows = np.empty(8, np.int64)
    mean = np.empty(3)
    count = 0
    for row in range(1, grid.count[0] + 1):
        x, y, z = grid.corner[row, 0], grid.corner[row, 1], grid.corner[row, 2]
        known = True
        for c in range(8):
            rows[c] = _find(grid, x + (c >> 2), y + ((c >> 1) & 1), z + (c & 1))
            known = known and rows[c] > 0
        if not known or _cross(rows, value, mean) == 0:
            continue
        witness = _witness(grid, row, least)
        if witness > 0:
            place[count, 0], place[count, 1], place[count, 2] = x + mean[0], y + mean[1], z + mean[2]
            cell[count], vertex[row] = witness, count
            count += 1
    return count


@njit(**_COMPILE)
def net_faces(grid, value, vertex, face):
    """Two triangles around every grid edge whose ends differ in sign and whose four cells have vertices.

    face: (n, 3) int32 out, counter-clockwise seen from the observed side. Returns their number.
    """
    count = 0
    for row in range(1, grid.count[0] + 1):
        a = vertex[row]
        if a < 0:
            continue
        x, y, z = grid.corner[row, 0], grid.corner[row, 1], grid.corner[row, 2]
        for axis in range(3):
            far = _find(grid, x + (axis == 0), y + (axis == 1), z + (axis == 2))
            if (value[row] < 0) == (value[far] < 0):
                continue
            bx, by, bz = int(axis == 2), int(axis == 0), int(axis == 1)
            cx, cy, cz = int(axis == 1), int(axis == 2), int(axis == 0)
            b = vertex[_find(grid, x - bx, y - by, z - bz)]
            c = vertex[_find(grid, x - bx - cx, y - by - cy, z - bz - cz)]
            d = vertex[_find(grid, x - cx, y - cy, z - cz)]
            if b < 0 or c < 0 or d < 0:
                continue
            if value[row] < 0:
                b, d = d, b
            face[count, 0], face[count, 1], face[count, 2] = a, d, c
            face[count + 1, 0], face[count + 1, 1], face[count + 1, 2] = a, c, b
            count += 2
    return count
