"""SUN RGB-D's raw files, small: images, and .mat files in MATLAB's exact structure, version 5 and 7.3."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
from PIL import Image

from tests.makers.labelled import keyed

WIDTH, HEIGHT = 16, 12
ROOT = "/n/fs/sun3d/data"
K = np.array([[14.0, 0, 8.3], [0, 15.0, 6.1], [0, 0, 1]])
TILT = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
FRAMES = (  # folder below SUNRGBD/; the first two are for test, the others for training
    "kv1/NYUdata/NYU0001",
    "kv1/NYUdata/NYU0002",
    "kv2/kinect2data/000002_2014-05-26",
    "realsense/lg/2014-10-21",
    "xtion/sun3ddata/hotel/1",
)
# Class, centre, coefficients (half sizes across, along, up), orientation; of each frame.
BED = ("bed", (0.4, 2.0, -0.3), (0.5, -0.8, 0.3), (0.6, 0.8, 0.0))
OBJECTS = {
    0: [BED, ("chair", (-0.5, 1.5, 0.1), (0.3, 0.25, 0.5), (-1.0, 0.0, 0.0))],
    1: [],
    2: [("lamp", (0, 1, 0), (0.1, 0.1, 0.1), (1, 0, 0)), ("night_stand", (0.1, 1.2, 0), (0.2, 0.3, 0.25), (0, -1, 0))],
    3: [("desk", (0.0, 2.2, 0.2), (0.4, 0.9, 0.0), (1.0, 0.0, 0.0)), BED],  # a desk without height
    4: [BED],
}


def images(root: Path, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Write a frame's images; millimetres (H, W), 0 for none, and colour (H, W, 3) uint8."""
    rng = keyed(number, 11)
    depth = rng.integers(900, 9000, (HEIGHT, WIDTH))
    depth[rng.random(depth.shape) < 0.2] = 0
    colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    place = root / "SUNRGBD" / FRAMES[number]
    for name in ("depth", "image"):
        (place / name).mkdir(parents=True)
    turned = ((depth << 3) | (depth >> 13)).astype(np.uint16)
    Image.fromarray(turned).save(place / "depth" / f"{number}.png")
    Image.fromarray(colour).save(place / "image" / f"{number}.png")
    return depth, colour


def write(root: Path, version: str = "5") -> list[tuple[np.ndarray, np.ndarray]]:
    """A folder with all frames; returns the images of each."""
    seen = [images(root, number) for number in range(len(FRAMES))]
    save = save_5 if version == "5" else save_73
    save(root / "SUNRGBDMeta3DBB_v2.mat", {"SUNRGBDMeta": [_frame(n, f"{ROOT}/SUNRGBD", False) for n in OBJECTS]})
    save(root / "SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat", {"SUNRGBDMeta": [_frame(n, ROOT, True) for n in OBJECTS]})
    listed = [f"{ROOT}/SUNRGBD/{name}" for name in FRAMES]
    listed[1] = f"{ROOT}//SUNRGBD/{FRAMES[1]}/"  # some lines look like this
    split = {"alltest": Cell(listed[:2]), "alltrain": Cell(listed[2:])}
    save(root / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", split)
    return seen


def _frame(number: int, root: str, v1: bool) -> dict:
    """A frame's struct. V2's boxes differ, and must not be taken."""
    place = f"{root}/{FRAMES[number]}"
    boxes = [
        {"basis": np.eye(3), "coeffs": np.array([half]), "centroid": np.array([centre]), "classname": name,
         "sequenceName": place, "orientation": np.array([ahead]), "label": np.array([[7.0]])}
        for name, centre, half, ahead in (OBJECTS[number] if v1 else [BED])
    ]  # fmt: skip
    frame = {"sequenceName": f"SUNRGBD/{FRAMES[number]}", "groundtruth3DBB": boxes or np.zeros((0, 0))}
    frame |= {"Rtilt": TILT, "K": K, "depthpath": f"{place}/depth/{number}.png"}
    return frame | {"rgbpath": f"{place}/image/{number}.png", "sensorType": "kv1", "valid": np.array([[1]])}


class Cell(list):
    """A cell array of one row; a plain list is a struct array."""


def save_5(path: Path, variables: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {name: _as_5(value) for name, value in variables.items()}, do_compression=True)


def _as_5(value):
    if isinstance(value, Cell):
        out = np.empty((1, len(value)), object)
        out[0, :] = value
        return out
    if isinstance(value, list):
        out = np.empty((1, len(value)), [(name, object) for name in value[0]])
        for i, item in enumerate(value):
            out[0, i] = tuple(_as_5(one) for one in item.values())
        return out
    return value


def save_73(path: Path, variables: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        hidden = file.create_group("#refs#")
        for name, value in variables.items():
            _put_73(file, hidden, file, name, value)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def _put_73(file, hidden, parent, name, value) -> None:
    def refer(items):
        names = []
        for item in items:
            names.append(str(len(hidden)))
            _put_73(file, hidden, hidden, names[-1], item)
        return np.array([[hidden[one].ref] for one in names], h5py.ref_dtype)

    if isinstance(value, Cell):
        parent.create_dataset(name, data=refer(value)).attrs["MATLAB_class"] = np.bytes_("cell")
    elif isinstance(value, list) and len(value) == 1:  # a single struct has no references
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field, item in value[0].items():
            _put_73(file, hidden, group, field, item)
    elif isinstance(value, list):
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in value[0]:
            group.create_dataset(field, data=refer([item[field] for item in value]))
    elif isinstance(value, str):
        data = parent.create_dataset(name, data=np.array([[ord(letter)] for letter in value], np.uint16))
        data.attrs["MATLAB_class"] = np.bytes_("char")
    elif value.size == 0:
        data = parent.create_dataset(name, data=np.array(value.shape, np.uint64))
        data.attrs["MATLAB_class"] = np.bytes_("double")
        data.attrs["MATLAB_empty"] = np.uint8(1)
    else:
        parent.create_dataset(name, data=value.T).attrs["MATLAB_class"] = np.bytes_("double")
