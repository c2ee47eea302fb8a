"""nuScenes' tables of JSON, read as streams: which sweeps of the lidar a scene has, and where they were taken."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.recorded import quaternion_rotation
from gen4d.sources.source import SourceError, unreadable

COLUMNS = "x y z intensity ring"
_ROW = re.compile(r"\{[^{}]*\}")
_PIECE = 1 << 20
_LIDAR = "/LIDAR_TOP/"


class Listed(NamedTuple):
    """One sweep: its file below the data set's folder, its time in seconds, and the lidar's pose in the world."""

    file: str
    time_s: float
    pose: np.ndarray


def rows(path: Path) -> Iterator[dict]:
    """The flat objects of a table, one after another: the largest tables have gigabytes. Raises SourceError."""
    try:
        with open(path, encoding="utf-8") as file:
            waiting = ""
            while piece := file.read(_PIECE):
                waiting += piece
                end = 0
                for match in _ROW.finditer(waiting):
                    yield json.loads(match.group())
                    end = match.end()
                waiting = waiting[end:]
    except OSError as error:
        raise unreadable(path, error, "it is part of nuScenes' tables") from None
    except ValueError as error:
        raise SourceError(path, f"is not one of nuScenes' tables ({error}): copy it again") from None
    if waiting.strip().strip("[],"):
        raise SourceError(path, "is cut short: copy it again")


def scene_names(tables: Path) -> list[tuple[str, int]]:
    """Name and number of samples of every scene."""
    return sorted((str(row["name"]), int(row["nbr_samples"])) for row in rows(tables / "scene.json"))


def scene_sweeps(tables: Path, scene: str) -> tuple[Listed, ...]:
    """The sweeps of a scene in time. Raises SourceError."""
    try:
        return _load(tables).get(scene, ())
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(tables, f"lacks what nuScenes' tables have ({error}): copy them again") from None


@functools.lru_cache(1)
def _load(tables: Path) -> dict[str, tuple[Listed, ...]]:
    """All sweeps by scene: the tables are by frame, so that one scene takes as long as all."""
    names = {row["token"]: row["name"] for row in rows(tables / "scene.json")}
    scene_of = {row["token"]: names[row["scene_token"]] for row in rows(tables / "sample.json")}
    lidar = [row for row in rows(tables / "sample_data.json") if _LIDAR in row["filename"]]
    wanted = {row["ego_pose_token"] for row in lidar}
    body = {row["token"]: _pose(row) for row in rows(tables / "ego_pose.json") if row["token"] in wanted}
    mount = {row["token"]: _pose(row) for row in rows(tables / "calibrated_sensor.json")}
    scenes: dict[str, list[Listed]] = {}
    for row in sorted(lidar, key=lambda row: row["timestamp"]):
        pose = body[row["ego_pose_token"]] @ mount[row["calibrated_sensor_token"]]
        scene = scene_of[row["sample_token"]]
        scenes.setdefault(scene, []).append(Listed(row["filename"], row["timestamp"] / 1e6, pose))
    return {scene: tuple(listed) for scene, listed in scenes.items()}


def _pose(row: dict) -> np.ndarray:
    """A pose of a translation and a quaternion, w first."""
    pose = np.eye(4)
    w, x, y, z = (np.array([value], float) for value in row["rotation"])
    pose[:3, :3], pose[:3, 3] = quaternion_rotation(x, y, z, w)[0], row["translation"]
    return pose
