"""A box room seen by a depth camera and by a lidar, and writers of recordings of it in the exact layouts of data sets.

Every point that is read back with the right conventions lies on a wall of the box, and with wrong ones off it.
"""

import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

from tests.makers.files import write

LOW, HIGH = np.array([-2.0, -1.5, 0.0]), np.array([3.0, 2.0, 2.5])
SHAPE, CAMERA = (48, 64), (60.0, 61.0, 31.0, 24.0)  # (height, width); fx, fy, cx, cy
CAMERA_TEXT = "60 0 31 0\n0 61 24 0\n0 0 1 0\n0 0 0 1\n"


def turn(axis: str, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    rows = {"x": [[1, 0, 0], [0, c, -s], [0, s, c]], "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
    return np.array(rows.get(axis, [[c, -s, 0], [s, c, 0], [0, 0, 1]]))


def rigid(rotation, shift) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, shift
    return pose


def camera_poses(count: int) -> list[np.ndarray]:
    """Poses camera to world of a walk through the room: x right, y down, z forward."""
    level = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], float)  # looks along the world's x
    return [rigid(turn("z", 0.2 * i) @ turn("y", 0.1 * i) @ level, (0.2 * i, 0.1 * i, 1.1)) for i in range(count)]


def distances(origin, ray) -> np.ndarray:
    """How many times each ray (..., 3) fits between the origin, inside the box, and its walls."""
    ray = np.where(np.abs(ray) < 1e-12, 1e-12, ray)
    return np.where(ray > 0, (HIGH - origin) / ray, (LOW - origin) / ray).min(axis=-1)


def depth_image(pose: np.ndarray, camera=CAMERA, shape=SHAPE) -> np.ndarray:
    """Depth in metres (H, W)."""
    v, u = np.indices(shape)
    ray = np.stack([(u - camera[2]) / camera[0], (v - camera[3]) / camera[1], np.ones(shape)], axis=-1)
    return distances(pose[:3, 3], ray @ pose[:3, :3].T)


def off_walls(point: np.ndarray) -> np.ndarray:
    """Distance (N,) of points from the nearest wall."""
    return np.minimum(np.abs(point - LOW), np.abs(point - HIGH)).min(axis=1)


def stored_depth(pose: np.ndarray, scale: float, holes: int = 0) -> np.ndarray:
    """A 16-bit depth image; its first 100 pixels hold `holes`, which stands for none."""
    image = np.round(depth_image(pose) * scale).astype(np.uint16)
    image.ravel()[:100] = holes
    return image


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def pgm(image: np.ndarray) -> bytes:
    return b"P5\n%d %d\n65535\n" % image.shape[::-1] + image.astype(">u2").tobytes()


def matrix(pose: np.ndarray, rows: int = 4) -> str:
    return "\n".join(" ".join(f"{value:.8f}" for value in row) for row in pose[:rows]) + "\n"


def line(pose: np.ndarray, rows: int = 3) -> str:
    return " ".join(f"{value:.9g}" for value in pose[:rows].ravel())


def quaternion(pose: np.ndarray) -> str:
    """qx qy qz qw, by the eigenvector of the rotation's 4 x 4 form."""
    m = pose[:3, :3]
    form = np.zeros((4, 4))
    form[:3, :3] = m + m.T - np.trace(m) * np.eye(3)
    form[3, :3] = form[:3, 3] = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    form[3, 3] = np.trace(m)
    return " ".join(f"{value:.9f}" for value in np.linalg.eigh(form)[1][:, -1])


def axis_angle(pose: np.ndarray) -> str:
    x, y, z, w = map(float, quaternion(pose).split())
    half = np.arctan2(np.linalg.norm([x, y, z]), w)
    axis = np.array([x, y, z]) / max(np.linalg.norm([x, y, z]), 1e-12) * 2 * half
    return " ".join(f"{value:.9f}" for value in axis)


# Frames


def sens(poses, compression=1, version=4, name=b"scene", frames=None, depth=None, colour=b"jpeg") -> bytes:
    """A .sens: `frames` is what its header says, and `depth` what its frames hold, where not the truth."""
    k = np.array([float(word) for word in CAMERA_TEXT.split()], "<f4")
    content = struct.pack("<IQ", version, len(name)) + name
    content += np.concatenate([k * 2, np.eye(4).ravel(), k, np.eye(4).ravel()]).astype("<f4").tobytes()
    count = len(poses) if frames is None else frames
    content += struct.pack("<2i4IfQ", 2, compression, 1296, 968, SHAPE[1], SHAPE[0], 1000.0, count)
    for i, pose in enumerate(poses):
        image = stored_depth(pose, 1000).tobytes() if np.isfinite(pose).all() else b"\0" * 2 * SHAPE[0] * SHAPE[1]
        body = zlib.compress(image) if compression == 1 else image
        body = body if depth is None else depth
        content += np.asarray(pose, "<f4").tobytes() + struct.pack("<4Q", i, 1000 * i, len(colour), len(body))
        content += colour + body
    return content + (struct.pack("<Q", 1) + b"\0" * 128 if version == 4 else b"")


LOST = np.full((4, 4), -np.inf)


def write_sens(folder: pathlib.Path, poses) -> None:
    write(folder / "scans" / "scene0000_00" / "scene0000_00.sens", sens([*poses, LOST]))


def write_exported(folder: pathlib.Path, poses) -> None:
    """Unpadded names; the pose of frame 2 is lost."""
    place = folder / "scene0000_00"
    for i, pose in enumerate([*poses[:2], LOST, *poses[2:]]):
        image = stored_depth(pose, 1000) if np.isfinite(pose).all() else np.zeros(SHAPE, np.uint16)
        write(place / "depth" / f"{i * 5}.png", png(image))
        write(place / "pose" / f"{i * 5}.txt", matrix(pose).encode())
    write(place / "intrinsic" / "intrinsic_depth.txt", _for_640().encode())


def _for_640() -> str:
    """Intrinsics of images ten times as wide and high, which is what ScanNet's are of."""
    fx, fy, cx, cy = CAMERA
    return matrix(
        np.array([[fx * 10, 0, cx * 10 + 4.5, 0], [0, fy * 10, cy * 10 + 4.5, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    )


def write_frames_25k(folder: pathlib.Path, poses) -> None:
    place = folder / "scannet_frames_25k" / "scene0000_00"
    for i, pose in enumerate(poses):
        write(place / "depth" / f"{i * 100:06d}.png", png(stored_depth(pose, 1000)))
        write(place / "pose" / f"{i * 100:06d}.txt", matrix(pose).encode())
    write(place / "intrinsics_depth.txt", _for_640().encode())


def write_tum(folder: pathlib.Path, poses) -> None:
    """Poses at 100 Hz beside the images' times; the last image has none within 20 ms."""
    place = folder / "rgbd_dataset_freiburg1_xyz"
    rows = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for i, pose in enumerate([*poses, poses[0]]):
        time_s = 1305031102.160407 + i
        write(place / "depth" / f"{time_s:.6f}.png", png(stored_depth(pose, 5000)))
        if i < len(poses):
            shift = " ".join(f"{value:.6f}" for value in pose[:3, 3])
            rows.append(f"{time_s + 0.013:.4f} {shift} {quaternion(pose)}")
    write(place / "groundtruth.txt", "\n".join(rows).encode())
    write(folder / "gen4d.yaml", f"scans: '*_xyz'\nframes: {{{TUM}, intrinsics: {list(CAMERA)}}}\n".encode())


TUM = (
    "depth: depth/*.png, depth_scale: 5000, pose: groundtruth.txt, match: time, pose_columns: time tx ty tz qx qy qz qw"
)


def write_seven_scenes(folder: pathlib.Path, poses) -> None:
    for i, pose in enumerate(poses):
        place = folder / "chess" / "seq-01" / f"frame-{i * 30:06d}"
        write(place.with_name(place.name + ".depth.png"), png(stored_depth(pose, 1000, 65535)))
        write(place.with_name(place.name + ".pose.txt"), matrix(pose).replace(" ", "\t ").encode())
    body = "depth: frame-*.depth.png, pose: 'frame-{key}.pose.txt', invalid: [65535]"
    write(folder / "gen4d.yaml", f"scans: '*/seq-*'\nframes: {{{body}, intrinsics: {list(CAMERA)}}}\n".encode())


def write_replica(folder: pathlib.Path, poses) -> None:
    for i, pose in enumerate(poses):
        write(folder / "room0" / "results" / f"depth{i:06d}.png", png(stored_depth(pose, 6553.5)))
    write(folder / "room0" / "traj.txt", "\n".join(line(pose, 4) for pose in poses).encode())
    body = "depth: results/depth*.png, depth_scale: 6553.5, pose: traj.txt, match: row"
    write(folder / "gen4d.yaml", f"scans: room0\nframes: {{{body}, intrinsics: {list(CAMERA)}}}\n".encode())


def write_arkit(folder: pathlib.Path, poses) -> None:
    """Poses world to camera; names of intrinsics are a millisecond off; the last image has no pose."""
    place, rows = folder / "Training" / "40753679", []
    fx, fy, cx, cy = CAMERA
    for i, pose in enumerate([*poses, poses[0]]):
        time_s = 6791.234 + 0.1 * i
        write(place / "lowres_depth" / f"40753679_{time_s:.3f}.png", png(stored_depth(pose, 1000)))
        name = f"40753679_{time_s + 0.001 * (i % 3 - 1):.3f}.pincam"
        write(place / "lowres_wide_intrinsics" / name, f"64 48 {fx} {fy} {cx} {cy}\n".encode())
        if i < len(poses):
            inverse = np.linalg.inv(pose)
            shift = " ".join(f"{value:.9f}" for value in inverse[:3, 3])
            rows.append(f"{time_s + 0.004:.4f} {axis_angle(inverse)} {shift}")
    write(place / "lowres_wide.traj", "\n".join(rows).encode())


def write_slambook(folder: pathlib.Path, poses) -> None:
    rows = []
    for i, pose in enumerate(poses):
        write(folder / "walk" / "depth" / f"{i + 1}.pgm", pgm(stored_depth(pose, 1000)))
        rows.append(" ".join(f"{value:.8f}" for value in pose[:3, 3]) + " " + quaternion(pose))
    write(folder / "walk" / "pose.txt", "\n".join(rows).encode())
    write(folder / "walk" / "intrinsics.txt", " ".join(map(str, CAMERA)).encode())


def write_opengl(folder: pathlib.Path, poses) -> None:
    """The folder itself is the scan; cameras look backward and up is up, as renderers have it."""
    for i, pose in enumerate(poses):
        write(folder / "d" / f"{i}.png", png(stored_depth(pose, 1000)))
        write(folder / "p" / f"{i}.txt", matrix(pose @ np.diag([1.0, -1, -1, 1]), 3).encode())
    body = "depth: d/*.png, pose: 'p/{key}.txt', camera: opengl"
    write(folder / "gen4d.yaml", f"frames: {{{body}, intrinsics: {list(CAMERA)}}}\n".encode())


FRAMES = {  # layout -> its writer, and how many of its frames are left out for which reason
    "sens": (write_sens, {"no pose": 1}),
    "exported": (write_exported, {"no pose": 1}),
    "frames_25k": (write_frames_25k, {}),
    "tum": (write_tum, {"no pose": 1}),
    "seven_scenes": (write_seven_scenes, {}),
    "replica": (write_replica, {}),
    "arkit": (write_arkit, {"no pose": 1}),
    "slambook": (write_slambook, {}),
    "opengl": (write_opengl, {}),
}


# Sweeps

MOUNT = rigid(turn("z", -1.5) @ turn("x", 0.3), (0.27, 0.1, -0.08))  # lidar -> what poses are of


def sweep_of(pose: np.ndarray, key: int, points: int = 1500) -> np.ndarray:
    """Points (N, 3) float32 in the lidar's frame."""
    ray = np.random.default_rng(key).normal(size=(points, 3))
    return (ray * distances(pose[:3, 3], ray @ pose[:3, :3].T)[:, None]).astype(np.float32)


def lidar_poses(count: int) -> list[np.ndarray]:
    return [rigid(turn("z", 0.2 * i) @ turn("x", 0.05 * i), (0.2 * i, 0.1 * i, 1.1)) for i in range(count)]


def rows_of(point: np.ndarray, columns: int) -> bytes:
    return np.concatenate([point, np.zeros((len(point), columns - 3), np.float32)], axis=1).astype("<f4").tobytes()


def write_kitti(folder: pathlib.Path, poses, labels: bool = False) -> None:
    """KITTI odometry: poses of the camera, from its first; sweep 1 is missing, so that rows and files part."""
    base = folder / "sequences" / "04"
    first = np.linalg.inv(poses[0] @ np.linalg.inv(MOUNT))
    inside = [pose for pose in (poses[0], poses[0], *poses[1:])]
    rows = [line(first @ pose @ np.linalg.inv(MOUNT)) for pose in inside]
    for i, pose in enumerate(inside):
        if i != 1:
            point = sweep_of(pose, i)
            write(base / "velodyne" / f"{i:06d}.bin", rows_of(point, 4))
            if labels:
                number = np.arange(len(point), dtype="<u4")
                write(base / "labels" / f"{i:06d}.label", (number % 20 | number % 7 << 16).tobytes())
    write(base / "calib.txt", f"P0: {line(np.eye(4))}\nTr: {line(MOUNT)}\n".encode())
    write(folder / "poses" / "04.txt", "\n".join(rows).encode())


def write_semantic_kitti(folder: pathlib.Path, poses) -> None:
    write_kitti(folder, poses, labels=True)


def write_nuscenes(folder: pathlib.Path, poses) -> None:
    """Quaternions w first, poses of the car, five columns."""
    tables = {name: [] for name in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor")}
    tables["scene"] = [{"token": "s", "name": "scene-0001", "nbr_samples": len(poses)}]
    tables["sample"] = [{"token": "f", "scene_token": "s"}]
    tables["calibrated_sensor"] = [{"token": "c", **_placed(MOUNT)}]
    for i, pose in enumerate(poses):
        name = f"sweeps/LIDAR_TOP/{i}.pcd.bin"
        write(folder / name, rows_of(sweep_of(pose, i), 5))
        tables["ego_pose"].append({"token": f"e{i}", **_placed(pose @ np.linalg.inv(MOUNT))})
        camera = {"token": f"x{i}", "filename": f"sweeps/CAM_FRONT/{i}.jpg"}
        row = {"sample_token": "f", "ego_pose_token": f"e{i}", "calibrated_sensor_token": "c", "timestamp": 10**6 * i}
        tables["sample_data"] += [row | {"token": f"d{i}", "filename": name}, row | camera]
    for name, rows in tables.items():
        write(folder / "v1.0-mini" / f"{name}.json", json.dumps(rows, indent=0).encode())


def _placed(pose: np.ndarray) -> dict:
    x, y, z, w = map(float, quaternion(pose).split())
    return {"translation": pose[:3, 3].tolist(), "rotation": [w, x, y, z]}


SWEEPS = {"kitti odometry": write_kitti, "semantickitti": write_semantic_kitti, "nuscenes": write_nuscenes}
