"""Posed depth images and lidar sweeps to sequences of views (STRL, section 3.1; PointContrast's pairs)."""
