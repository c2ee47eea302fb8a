"""Articulated shapes as URDF: texts with one thing changed, and a cupboard whose door has a handle that turns."""

import pathlib

from tests.makers.files import off, write
from tests.makers.meshes import CUBE_QUADS, CUBE_VERTEX

CUPBOARD = """<?xml version="1.0"?>
<robot name="cupboard">
  <link name="feet"><visual><origin xyz="0 0 0.05"/><geometry><box size="0.4 0.3 0.1"/></geometry></visual></link>
  <link name="case"><visual><geometry><mesh filename="mesh/case.off" scale="0.8 0.4 0.9"/></geometry></visual></link>
  <link name="door"><visual><origin xyz="0.35 0 0.45"/><geometry><box size="0.7 0.02 0.9"/></geometry></visual></link>
  <link name="handle"><visual><origin xyz="-0.06 0 0"/><geometry><box size="0.12 0.02 0.02"/></geometry></visual></link>
  <link name="tray"><visual><geometry><box size="0.5 0.3 0.02"/></geometry></visual></link>
  <joint name="foot" type="fixed"><parent link="feet"/><child link="case"/><origin xyz="-0.4 -0.2 0.1"/></joint>
  <joint name="hinge" type="revolute"><parent link="case"/><child link="door"/>
    <origin xyz="0.05 -0.03 0" rpy="0 0 0.3"/><axis xyz="0 0 -2"/><limit lower="0.2" upper="1.7"/></joint>
  <joint name="latch" type="continuous"><parent link="door"/><child link="handle"/>
    <origin xyz="0.65 -0.03 0.5" rpy="1.5707963 0 0"/><axis xyz="0 0 1"/></joint>
  <joint name="slide" type="prismatic"><parent link="case"/><child link="tray"/>
    <origin xyz="0.4 0.2 0.5" rpy="0 0 0"/><axis xyz="0 -1 0"/><limit lower="-0.02" upper="0.25"/></joint>
</robot>
"""


def write_cupboard(folder: pathlib.Path, name: str = "cupboard_1", change: tuple[str, str] = ("", "")) -> pathlib.Path:
    """A cupboard of the class cabinet; change: a text in its URDF, and what stands there instead."""
    assert change[0] in CUPBOARD
    path = folder / "cabinet" / name / "cupboard.urdf"
    write(path, CUPBOARD.replace(*change, 1).encode() if change[0] else CUPBOARD.encode())
    write(path.parent / "mesh" / "case.off", off(CUBE_VERTEX, CUBE_QUADS))
    return path
