"""Frames against each other and against the 4D sequence: 4DContrast, its ablations and its SimCLR variant."""
