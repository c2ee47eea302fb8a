"""Sequences of shapes that move through scans: 4DContrast, section 3.3."""
