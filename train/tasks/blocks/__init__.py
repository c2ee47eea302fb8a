"""Segmentation by a net on points that sees blocks of a room (STRL, section 5.2.2)."""
