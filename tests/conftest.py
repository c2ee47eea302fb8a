"""Which tests are slow, data sets that several files share, and one thread for torch.

One thread in every test and every process that a test starts, as the trainer's command line has it: sums depend on the
number of threads, and a child that is forked from a process with OpenMP threads hangs at its first parallel loop. Tests
of other counts set them themselves. What is kept of shapes goes to a folder of this run, not to the user's.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

_KEPT = tempfile.TemporaryDirectory(prefix="gen4d-tests-")
os.environ["GEN4D_CACHE"] = _KEPT.name

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

# Left out by `make quick`: whole files, and single tests of others that take seconds.
SLOW_FILES = """
    appearance bad_input classify cluster crash damage damage_files damage_large dataloader detect distill finetune_cli
    hostile hostile_files instances laws laws_see loop methods nets objects_cli parts probe remote remote_errors
    sameness samples segment signals sizes sources_fuzz sparse strl study tilted train_cli watch windows
""".split()
SLOW_TESTS = """
    test_a_bad_scan_is_refused_in_one_line_and_the_others_go_on
    test_a_child_process_loads_after_its_parent_did
    test_a_run_killed_at_any_step_ends_in_the_same_bits
    test_an_interrupted_run_is_done_again_to_the_same_bytes
    test_the_doctor_has_no_such_doubts_about_built_in_samples
    test_blocks_of_a_document_run_in_their_order
    test_cosine_methods_fit_one_sequence_with_their_features_spread
    test_every_class_of_the_benchmark_and_the_eight_shapes_occur_in_forty_rooms
    test_floor_is_levelled_to_a_twentieth_of_a_degree
    test_forward_and_backward_repeat_bit_by_bit
    test_four_processes_joined_by_gloo_share_the_global_order
    test_hardest_contrastive_fits_one_sequence
    test_kernels_agree_without_compilation
    test_same_seed_gives_same_bytes_in_another_process_and_whatever_the_number_of_rooms
    test_samples_are_written_once
    test_self_check_passes_here
    test_submanifold_equals_dense_convolution_on_its_voxels
    test_the_kernels_equal_their_twins_without_the_compiler_too
    test_two_processes_joined_by_gloo_make_the_one_process_update
    test_what_strl_pre_trained_is_fine_tuned_on_one_area_and_judged_on_another
""".split()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW_FILES or item.originalname in SLOW_TESTS:
            item.add_marker("slow")


# What the tests of damage change copies of: the smallest data sets there are. Nobody changes the originals.


@pytest.fixture(scope="session")
def three_rooms(tmp_path_factory):
    """A folder of three bare rooms and a shape, in which data sets may be built."""
    from tests.makers import commands

    return commands.write_rooms(tmp_path_factory.mktemp("rooms"), 3)


@pytest.fixture(scope="session")
def one_sequence(three_rooms):
    """A data set of one shard of one sequence."""
    from tests.makers import commands

    return commands.build(three_rooms, "--limit", "1", "--sequences", "1", out="small")


@pytest.fixture(scope="session")
def three_shards(three_rooms):
    """A data set of three shards of two sequences each, with pair lists."""
    from tests.makers import commands

    return commands.build(three_rooms, "--pairs", out="three")


@pytest.fixture
def copy_of_one(one_sequence, tmp_path):
    return pathlib.Path(shutil.copytree(one_sequence, tmp_path / "copy"))


@pytest.fixture
def copy_of_three(three_shards, tmp_path):
    return pathlib.Path(shutil.copytree(three_shards, tmp_path / "copy"))


@pytest.fixture
def full_disk(tmp_path):
    """A function that mounts a file system of so many bytes."""
    place = tmp_path / "disk"
    mounted = []

    def mount(size: int):
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "gen4d-test", str(place)]
        try:
            run = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command to make a small disk with")
        if run.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {run.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for item in mounted:
        subprocess.run(["umount", str(item)], check=True)
