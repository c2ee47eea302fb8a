"""URDF: parts and their joints, as robots and PartNet-Mobility describe objects that move. Geometry lies in mesh files.

Of a link its visuals are read, meshes and boxes, and of a joint its kind, place, axis and limits. The rest (inertia,
collisions, colours) concerns simulators.
"""

import math
import posixpath
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gen4d.sources.source import SourceError

_KINDS = {"revolute": "hinge", "continuous": "hinge", "prismatic": "slide", "fixed": "fixed"}


class Visual(NamedTuple):
    """A piece of a link: a mesh file beside the URDF, or "" for a box of edge 1 around the origin; and the transform
    (4, 4) float64 into the link's frame, which may scale."""

    mesh: str
    transform: np.ndarray


class UrdfJoint(NamedTuple):
    """A joint as it stands there: the child's frame is `origin` in the parent's; it turns about, or slides along,
    `axis` (3,), which has the length 1, in its own frame, from `low` to `high` radians or units."""

    name: str
    kind: str  # hinge, slide or fixed
    parent: str
    child: str
    origin: np.ndarray
    axis: np.ndarray
    low: float
    high: float


class Urdf(NamedTuple):
    """Visuals by link, in the file's order, and all joints."""

    links: dict[str, list[Visual]]
    joints: list[UrdfJoint]


def read_urdf(path: Path, content: bytes) -> Urdf:
    """The links and joints of a URDF file. Raises SourceError for all that cannot be read, with line or name."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise SourceError(path, "declares a document type or entities, which URDF has no use for: remove them")
    try:
        root = xml.fromstring(content)
    except (xml.ParseError, ValueError, LookupError) as error:
        raise SourceError(path, f"is not readable XML ({error}): write it again") from error
    if root.tag != "robot":
        raise SourceError(path, f"is XML of a {root.tag!r}, not of a robot: URDF is needed")
    links: dict[str, list[Visual]] = {}
    for link in root.findall("link"):
        name = _name(path, link, "link")
        if name in links:
            raise SourceError(path, f"has two links named {name!r}: rename one")
        links[name] = [_visual(path, name, visual) for visual in link.findall("visual")]
    return Urdf(links, [_joint(path, joint, links) for joint in root.findall("joint")])


def _name(path: Path, element: xml.Element, what: str) -> str:
    name = element.get("name", "")
    if not name:
        raise SourceError(path, f"has a {what} without a name: give it one")
    return name


def _visual(path: Path, link: str, visual: xml.Element) -> Visual:
    transform = _origin(path, f"link {link!r}", visual.find("origin"))
    mesh, box = visual.find("geometry/mesh"), visual.find("geometry/box")
    if mesh is not None:
        file = mesh.get("filename", "")
        plain = posixpath.normpath(file.replace("\\", "/"))
        if not file or ":" in plain or plain.startswith(("/", "..")):
            raise SourceError(
                path, f"names the mesh {file!r} in link {link!r}: give a path below the file's own folder"
            )
        return Visual(plain, transform @ _scaling(_numbers(path, mesh, "scale", f"link {link!r}", [1.0, 1.0, 1.0])))
    if box is not None:
        size = _numbers(path, box, "size", f"link {link!r}", [0.0, 0.0, 0.0])
        return Visual("", transform @ _scaling(size))
    raise SourceError(path, f"has a visual of neither mesh nor box in link {link!r}: export it as a mesh")


def _scaling(size: list[float]) -> np.ndarray:
    return np.diag([*size, 1.0])


def _joint(path: Path, joint: xml.Element, links: dict) -> UrdfJoint:
    name = _name(path, joint, "joint")
    where, given = f"joint {name!r}", joint.get("type", "")
    if given not in _KINDS:
        raise SourceError(path, f"has {where} of type {given!r}: one of {', '.join(_KINDS)}")
    if joint.find("mimic") is not None:
        raise SourceError(path, f"has {where} that mimics another, not read here: remove its mimic element")
    ends = []
    for end in ("parent", "child"):
        element = joint.find(end)
        ends.append("" if element is None else element.get("link", ""))
        if ends[-1] not in links:
            raise SourceError(path, f"has {where} with the {end} {ends[-1]!r}, which is not a link: repair it")
    axis = np.array(_numbers(path, joint.find("axis"), "xyz", where, [1.0, 0.0, 0.0]))
    length = float(np.linalg.norm(axis))
    if not length > 1e-9:
        raise SourceError(path, f"has {where} with an axis of length {length:.3g}: give a direction")
    low, high = _limits(path, where, given, joint.find("limit"))
    origin = _origin(path, where, joint.find("origin"))
    return UrdfJoint(name, _KINDS[given], ends[0], ends[1], origin, axis / length, low, high)


def _limits(path: Path, where: str, given: str, limit: xml.Element | None) -> tuple[float, float]:
    if given == "fixed":
        return 0.0, 0.0
    if given == "continuous":
        return -math.pi, math.pi
    if limit is None:
        raise SourceError(path, f"has {where} of type {given} without limits: add <limit lower=... upper=...>")
    low, high = (_numbers(path, limit, end, where, [0.0])[0] for end in ("lower", "upper"))
    if not low < high or (given == "revolute" and high - low > 2 * math.pi + 1e-6):
        raise SourceError(path, f"has {where} from {low:g} to {high:g}: a range that rises, at most once around")
    return low, high


def _origin(path: Path, where: str, origin: xml.Element | None) -> np.ndarray:
    """A transform (4, 4): turned about x, y and z in this order, then shifted."""
    roll, pitch, yaw = _numbers(path, origin, "rpy", where, [0.0, 0.0, 0.0])
    out = np.eye(4)
    cos, sin = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    about_x = np.array([[1, 0, 0], [0, cos[0], -sin[0]], [0, sin[0], cos[0]]])
    about_y = np.array([[cos[1], 0, sin[1]], [0, 1, 0], [-sin[1], 0, cos[1]]])
    about_z = np.array([[cos[2], -sin[2], 0], [sin[2], cos[2], 0], [0, 0, 1]])
    out[:3, :3] = about_z @ about_y @ about_x
    out[:3, 3] = _numbers(path, origin, "xyz", where, [0.0, 0.0, 0.0])
    return out


def _numbers(path: Path, element: xml.Element | None, key: str, where: str, default: list[float]) -> list[float]:
    """As many finite numbers as the default has, or the default where the attribute is not there."""
    text = None if element is None else element.get(key)
    if text is None:
        return default
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != len(default) or not all(abs(value) < 1e6 for value in values):
        raise SourceError(path, f"has {key}={text[:60]!r} in {where}: {len(default)} finite numbers are needed")
    return values
