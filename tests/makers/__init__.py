"""Makers of what tests and benchmarks work on.

files.py      bytes of every format of points and meshes, folders in the layouts of known data sets
rooms.py      rooms as points and as folders of scans
meshes.py     furniture and boxes, and folders of shapes
sequences.py  sequences without a generator, and small data sets
labelled.py   labelled rooms for the tasks of the trainer
commands.py   the commands as a user runs them, on the smallest folders there are
"""
