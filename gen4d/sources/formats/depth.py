"""Depth images of 16 bits: .png, .pgm, .tiff, by Pillow."""

import io
import warnings
from pathlib import Path

import numpy as np

from gen4d.sources.source import SourceError

_FORMATS = ("PNG", "PPM", "TIFF")
_MOST_PIXELS = 1 << 26


def read_depth(path: Path, content: bytes) -> np.ndarray:
    """A depth image (H, W) uint16. Raises SourceError for anything else."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            width, height = image.size
            if image.mode not in ("I;16", "I;16B", "I") or width * height > _MOST_PIXELS:
                what = f"is an image of mode {image.mode}, {width} x {height}"
                raise SourceError(path, f"{what}: depth has 16 bits a pixel and no colour")
            depth = np.asarray(image)
    except SourceError:
        raise
    except UnidentifiedImageError:
        raise SourceError(path, "is not a 16-bit .png, .pgm or .tiff: convert or remove it") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise SourceError(path, f"is no depth image ({error}): remove it") from None
    except (OSError, ValueError, SyntaxError, IndexError, KeyError, EOFError) as error:
        raise SourceError(path, f"is a damaged image ({error}): copy or download it again") from None
    if depth.dtype != np.uint16:
        if depth.size and not 0 <= int(depth.min()) <= int(depth.max()) < 2**16:
            raise SourceError(path, "has depths outside 0 to 65535: 16-bit depth is needed")
        depth = depth.astype(np.uint16)
    return np.ascontiguousarray(depth)
