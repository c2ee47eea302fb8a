"""Static 3D scans and CAD shapes in, 4D sequences with exact correspondences out."""

__version__ = "0.1.0"
