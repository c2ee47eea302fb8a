"""A lidar sweep to a cloud: what is in reach, thinned, in the sensor's frame."""

import numpy as np

from gen4d.moving import cloud
from gen4d.sequence import Cloud
from gen4d.sources.sweeps import Sweep
from gen4d.views import kernels


def sweep_cloud(sweep: Sweep, near_m: float, far_m: float, voxel_m: float) -> Cloud:
    """The cloud of a sweep: of its points at least and at most so far away one a voxel, the first in file order."""
    count = len(sweep.point)
    point, row = np.empty((count + 1, 3), np.float32), np.empty(count + 1, np.int32)
    kept = kernels.select_sweep(sweep.point, near_m, far_m, point, row)
    chosen = cloud.thin(point[:kept], voxel_m)
    row = row[chosen]
    label, instance = (None if column is None else column[row] for column in (sweep.label, sweep.instance))
    return Cloud(point[chosen], row, label, instance)
