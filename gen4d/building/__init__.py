"""Many inputs in, a data set out: planned, spread over workers, machines or parts, resumable."""

from gen4d.building.dataset import Built, Progress, build_dataset, build_found, write_dataset
from gen4d.building.errors import BuildError, unwritable
from gen4d.building.inputs import Found, Inputs, find_inputs, find_orientation, make_inputs
from gen4d.building.parts import PartError, merge
from gen4d.building.plan import Part, Plan, make_plan, read_done, read_plan
from gen4d.building.run import clean, finish, refused, run
from gen4d.building.shard import Job, build_shard, describe_error, load_scan

__all__ = [
    "BuildError",
    "Built",
    "Found",
    "Inputs",
    "Job",
    "Part",
    "PartError",
    "Plan",
    "Progress",
    "build_dataset",
    "build_found",
    "build_shard",
    "clean",
    "describe_error",
    "find_inputs",
    "find_orientation",
    "finish",
    "load_scan",
    "make_inputs",
    "make_plan",
    "merge",
    "read_done",
    "read_plan",
    "refused",
    "run",
    "unwritable",
    "write_dataset",
]
