"""A depth image to a cloud: back-projected (STRL, Eq. 1) and thinned, in the camera's frame."""

import numpy as np

from gen4d.moving import cloud
from gen4d.sequence import Cloud
from gen4d.sources.frames import DepthFrame
from gen4d.views import kernels


def back_project(frame: DepthFrame, near_m: float, far_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) float32 of a depth image in its camera's frame, metres, and the pixel of each (N,) int32, row by
    row. Pixels without depth, or nearer or farther than the limits, have none."""
    pixels = frame.depth.size
    point, pixel = np.empty((pixels + 1, 3), np.float32), np.empty(pixels + 1, np.int32)
    camera = np.array(frame.camera, np.float64)
    count = kernels.back_project(frame.depth, camera, float(frame.scale), near_m, far_m, point, pixel)
    return point[:count], pixel[:count]


def frame_cloud(frame: DepthFrame, near_m: float, far_m: float, voxel_m: float) -> Cloud:
    """The cloud of a depth image: one point a voxel, the first by row and column; a vertex is its pixel."""
    point, pixel = back_project(frame, near_m, far_m)
    row = cloud.thin(point, voxel_m)
    return Cloud(point[row], pixel[row])
