"""Many inputs in, a data set out: planned, spread over workers, machines or parts, resumable."""

from gen4d.building.dataset import Built, Progress, build_dataset, build_found, write_dataset
from gen4d.building.errors import BuildError, GivenError, unwritable
from gen4d.building.inputs import Found, Given, Inputs, Made, Source
from gen4d.building.kinds import Kind, find_inputs, kind_of
from gen4d.building.like import LikeError, compare, find_differences, find_like, read_published
from gen4d.building.parts import PartError, merge
from gen4d.building.plan import Part, Plan, make_plan, read_done, read_plan
from gen4d.building.run import clean, finish, refused, refused_in, run
from gen4d.building.shard import Job, build_shard, describe_error

__all__ = [
    "BuildError",
    "Built",
    "Found",
    "Given",
    "GivenError",
    "Inputs",
    "Job",
    "Kind",
    "LikeError",
    "Made",
    "Part",
    "PartError",
    "Plan",
    "Progress",
    "Source",
    "build_dataset",
    "build_found",
    "build_shard",
    "clean",
    "compare",
    "describe_error",
    "find_differences",
    "find_inputs",
    "find_like",
    "finish",
    "kind_of",
    "make_plan",
    "merge",
    "read_done",
    "read_plan",
    "read_published",
    "refused",
    "refused_in",
    "run",
    "unwritable",
    "write_dataset",
]
