"""`python -m benchmarks frames`: posed depth images from file to shard, overlaps of a scan, and pairs by the loader.

On real Kinect frames if they are beside the checkout, else on rendered ones of the same size. The reference does the
same work in plain NumPy and scipy, as scripts of the field do it: np.unique for voxels, KD-trees for the rest. Times
are of the processor, of one process, and so what an idle core takes.
"""

import pathlib
import tempfile
import time

import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

import gen4d
from gen4d.building import frames as kind
from gen4d.config import FramesConfig
from gen4d.sources.frames import read_frames
from gen4d.sources.posed import Reading, find_posed
from gen4d.sources.recorded import poses_of
from gen4d.views.frames import frame_cloud
from gen4d.views.overlap import find_overlaps, sparse_points
from tests.makers import recordings
from tests.makers.files import write

FRAMES, SCAN = 40, 300
SHAPE, CAMERA = (480, 640), (518.0, 519.0, 325.5, 253.5)
_REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "rgbd_slambook2"


def write_scan(folder: pathlib.Path, count: int) -> str:
    """`count` frames as 16-bit PNG with poses of a walk; says what they show."""
    real = sorted((_REAL / "depth").glob("*.pgm"))
    poses = _real_poses() if real else recordings.camera_poses(5)
    for i in range(count):
        pose = poses[i % len(poses)]
        if real:
            image = np.asarray(Image.open(real[i % len(real)])).astype(np.uint16)
        else:
            noise = np.random.default_rng(i).normal(0, 5, SHAPE)
            image = (1000 * recordings.depth_image(pose, CAMERA, SHAPE) + noise).astype(np.uint16)
        write(folder / "scan" / "depth" / f"{i}.png", recordings.png(image))
        write(folder / "scan" / "pose" / f"{i}.txt", recordings.matrix(pose).encode())
    write(folder / "scan" / "intrinsics.txt", " ".join(map(str, CAMERA)).encode())
    return "real Kinect frames" if real else "rendered frames"


def _real_poses() -> list[np.ndarray]:
    table = np.loadtxt(_REAL / "pose.txt")
    return list(poses_of(_REAL / "pose.txt", table, "auto")[1])


def reference_frame(path: pathlib.Path) -> np.ndarray:
    """A frame read, back-projected and thinned, in plain NumPy."""
    depth = np.asarray(Image.open(path)).astype(np.float64) / 1000
    v, u = np.indices(depth.shape)
    point = np.stack([(u - CAMERA[2]) * depth / CAMERA[0], (v - CAMERA[3]) * depth / CAMERA[1], depth], axis=-1)
    point = point[depth > 0]
    return point[np.unique(np.floor(point / 0.02), axis=0, return_index=True)[1]].astype(np.float32)


def best(work, turns: int = 3) -> float:
    """Least seconds of some turns."""
    seconds = []
    for _ in range(turns):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return min(seconds)


def main() -> None:
    """Print every figure."""
    kind.warm_up(FramesConfig())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        what = write_scan(folder, FRAMES)
        _frames(folder, what)
        _overlaps(folder)
        _pairs(folder)


def _frames(folder: pathlib.Path, what: str) -> None:
    source = find_posed(folder, "frames").sources[0]
    files = sorted((folder / "scan" / "depth").glob("*.png"))[:5]

    def ours() -> None:
        for frame in read_frames(source, 1, Reading()):
            frame_cloud(frame, 0.0, 10.0, 0.02)

    decode = best(lambda: [np.asarray(Image.open(path)) for path in files]) / len(files)
    plain = best(lambda: [reference_frame(path) for path in files]) / len(files)
    mine = best(ours) / FRAMES
    started = time.process_time()
    settings = {"frames": 2, "every": 1, "overlap_m": 0.0}
    built = gen4d.build_dataset(folder, out=folder / "out", kind="frames", **settings)
    whole = (time.process_time() - started) / FRAMES
    size = built.manifest["totals"]["bytes"] / FRAMES
    print(f"{FRAMES} {what} of 640 x 480, 16-bit PNG")
    print(f"  file to cloud  {1e3 * mine:6.1f} ms a frame, plain NumPy {1e3 * plain:6.1f} ms: {plain / mine:.0f} times")
    work = f"{1e3 * (mine - decode):.1f} ms against {1e3 * (plain - decode):.1f} ms"
    print(
        f"  without the {1e3 * decode:.1f} ms of decoding PNG: {work}, {(plain - decode) / (mine - decode):.0f} times"
    )
    print(f"  file to fsynced shard {1e3 * whole:.1f} ms a frame, {size / 1e6:.2f} MB a frame")
    for count in (25_000, 100_000):
        cost = f"{count * whole / 60:.0f} minutes on one core, {count * size / 1e9:.0f} GB"
        print(f"  extrapolated: {count} frames {cost}")


def _overlaps(folder: pathlib.Path) -> None:
    """All pairs of a scan of 300 frames that walk on by 2 mm a frame and so all see one room."""
    views = gen4d.open_dataset(folder / "out").views(0)
    poses = [recordings.rigid(np.eye(3), (0.002 * i, 0, 0)) @ views.pose[i % FRAMES] for i in range(SCAN)]
    started = time.process_time()
    sparse = [sparse_points(views.clouds[i % FRAMES].point, pose, 0.05) for i, pose in enumerate(poses)]
    share = find_overlaps(sparse, 0.05)
    mine = time.process_time() - started
    trees = [cKDTree(point) for point in sparse[:6]]
    started = time.process_time()
    for i in range(6):
        for j in range(6):
            trees[j].query(sparse[i], distance_upper_bound=0.05)
    plain = (time.process_time() - started) / 36 * SCAN * SCAN
    enough = int((np.maximum(share, share.T) >= 0.3).sum() - SCAN) // 2
    print(f"overlaps of all {SCAN * (SCAN - 1) // 2} pairs of {SCAN} frames, {len(sparse[0])} points each at 5 cm")
    print(f"  {mine:.1f} s, KD-trees extrapolated from 36 pairs {plain:.0f} s; {enough} pairs overlap by 30 %")


def _pairs(folder: pathlib.Path) -> None:
    """PointContrast's protocol: two frames and their correspondences."""
    settings = {"frames": 2, "every": 1, "choose": "pairs", "sequences": 60}
    for pairs in (False, True):
        out = folder / f"pairs-{pairs}"
        gen4d.build_dataset(folder, out=out, kind="frames", pairs=pairs, **settings)
        dataset = gen4d.open_dataset(out)
        found = []

        def load(dataset=dataset, found=found) -> None:
            found[:] = [(*sequence.frames, sequence.correspondences(0, 1)) for sequence in dataset]

        seconds = best(load) / len(dataset)
        mean = np.mean([len(first) for *_, (first, _) in found])
        size = sum(path.stat().st_size for path in (out / "shards").glob("*.zip")) / len(dataset)
        made = "stored" if pairs else "made at load"
        print(
            f"pairs, correspondences {made}: {1 / seconds:.0f} sequences/s, {mean:.0f} pairs each, {size / 1e6:.2f} MB"
        )
        if not pairs:
            first, second = (frame.point for frame in found[0][:2])
            plain = best(lambda a=first, b=second: (cKDTree(b).query(a), cKDTree(a).query(b)))
            mine = best(lambda a=first, b=second: gen4d.match_points(a, b, 0.03))
            print(f"  matching alone {1e3 * mine:.1f} ms, KD-trees {1e3 * plain:.0f} ms: {plain / mine:.0f} times")
