"""The depth images of a simulated walk on disk, and a gen4d.yaml that says how they lie there.

DIR/frames/gen4d.yaml
DIR/frames/sceneXXXX_YY/depth/0000.png, ...  16 bits, millimetres, 0 = no reading
DIR/frames/sceneXXXX_YY/pose/0000.txt, ...   camera to world, (4, 4)
"""

import io
from pathlib import Path

import numpy as np

from gen4d.samples.camera.scanner import LENS

_FOCAL, _CX, _CY = LENS  # of pixels whose centres are at halves; images are read with centres at whole numbers
DESCRIPTION = f"""scans: "scene*"
frames:
  depth: depth/*.png
  pose: "pose/{{key}}.txt"
  intrinsics: [{_FOCAL}, {_FOCAL}, {_CX - 0.5}, {_CY - 0.5}]
"""


class FrameWriter:
    """Writes one scan's images into a folder as they are seen. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        for name in ("depth", "pose"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def __call__(self, depth: np.ndarray, pose: np.ndarray) -> None:
        """One image (H, W) in metres and its pose (4, 4)."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(buffer, "PNG")
        (self.folder / "depth" / f"{self.count:04d}.png").write_bytes(buffer.getvalue())
        text = "".join(" ".join(f"{value:.8f}" for value in row) + "\n" for row in pose)
        (self.folder / "pose" / f"{self.count:04d}.txt").write_text(text)
        self.count += 1
