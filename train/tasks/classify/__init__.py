"""Shapes and their classes: a linear machine on frozen features, and fine-tuning on all and on few labels."""
