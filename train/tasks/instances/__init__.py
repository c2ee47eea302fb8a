"""Instance segmentation: PointGroup on a pre-trained backbone."""
