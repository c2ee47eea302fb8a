"""What the generator, the readers and the loader cost, and the references that they are measured against.

research.py, careful.py and compiled.py do one job three ways: as research code is commonly written, in careful NumPy,
and by gen4d's own steps. tests/test_references.py shows that all three make the same frames and pair lists.
"""
