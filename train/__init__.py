"""Self-supervised pre-training of sparse 3D and 4D U-Nets on gen4d sequences."""
