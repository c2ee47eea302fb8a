"""Built-in articulated furniture on disk: a URDF and an OFF file a part in a folder of its own, in metres.

DIR/articulated/<class>/<class>_0001/<class>_0001.urdf, body.off, drawer_1.off, ...
"""

from gen4d.samples.draws import keyed
from gen4d.samples.modelnet import off_text
from gen4d.samples.objects.jointed import JOINTED, Limb


def articulated_files(seed: int, class_name: str, index: int) -> dict[str, bytes]:
    """The files of articulated shape `index` of a class by their paths: the same whatever other shapes are made."""
    name = f"{class_name}_{index + 1:04d}"
    made = JOINTED[class_name](keyed(seed, "articulated", class_name, index))
    lines = [f'<robot name="{name}">', *_link("body")]
    meshes = {"body": (made.body.point, made.body.face)}
    for limb in made.limbs:
        meshes[limb.name] = (limb.mesh.point - limb.point, limb.mesh.face)
        lines += _link(limb.name) + _joint(limb)
    folder = f"{class_name}/{name}"
    files = {f"{folder}/{part}.off": off_text(*mesh) for part, mesh in meshes.items()}
    return files | {f"{folder}/{name}.urdf": "\n".join([*lines, "</robot>", ""]).encode()}


def _link(name: str) -> list[str]:
    mesh = f'<mesh filename="{name}.off"/>'
    return [f'  <link name="{name}">', f"    <visual><geometry>{mesh}</geometry></visual>", "  </link>"]


def _joint(limb: Limb) -> list[str]:
    kind = "prismatic" if limb.kind == "slide" else "revolute"
    place, axis = (" ".join(f"{value:.6g}" for value in row) for row in (limb.point, limb.axis))
    return [
        f'  <joint name="{limb.name}_joint" type="{kind}">',
        f'    <parent link="body"/><child link="{limb.name}"/>',
        f'    <origin xyz="{place}" rpy="0 0 0"/><axis xyz="{axis}"/>',
        f'    <limit lower="{limb.low:.6g}" upper="{limb.high:.6g}" effort="0" velocity="0"/>',
        "  </joint>",
    ]
