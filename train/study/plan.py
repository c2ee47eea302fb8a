"""What a study compares: arms, stages, cells, tests, the settings of every run in it, and what it will cost.

The unit is the pre-training seed. Cells of one seed, share of labels and subset are pairs: scratch is the very net that
the other arms of its seed started from, and labels, head, batches and number of steps are the same.

Four stages, of which the first three use validation rooms and seeds of their own, and the last test rooms:

    length    scratch with several numbers of steps: the shortest is taken whose next gains less than `gain`
    screen    every arm is pre-trained and probed; `best` is the best of the candidates by linear probe
    tries     every compared arm, scratch too, is fine-tuned by every recipe, and keeps its best
    compare   the compared arms with that recipe, over fresh seeds and rooms, looked at on test rooms on the way
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from train.config import ConfigError, change, check, leaves, positive, resolve
from train.methods.config import PRESETS as PRETRAINING
from train.methods.config import PretrainConfig
from train.study.arms import ARMS, LAYERED, SCRATCH, pretrained_as, recipe_of
from train.tasks.config import PRESETS_OF, FinetuneConfig
from train.tasks.probe import PRESETS as PROBES
from train.tasks.probe import ProbeConfig

STAGES = ("length", "screen", "tries", "compare")
BEST = "best"  # the best of the candidates
MEASURES = {"segmentation": "segment", "instances": "instances", "detection": "detect"}  # and their tasks
SCORES = {"segmentation": "mIoU", "instances": "AP50", "detection": "AP25"}
NETS = ("net_3d", "net_4d", "voxel_m", "voxel_4d_m")  # settings of every method that a study sets
_RADIUS = 1.5  # voxels: how far apart neighbours of an instance may be, as in the task's presets
_TUNING_SEEDS = 500  # seeds of the first three stages begin here, those of the comparison at 0

# What a test is asked for, and so where its answer stands in the report.
QUESTIONS = {
    "pretraining": "Does pre-training help?",
    "motion": "Does motion help?",
    "4d": "Does 4D help?",
    "other": "What else was tested",
}


class Test(NamedTuple):
    """Whether an arm is better, or worse, than its floor."""

    question: str
    arm: str
    floor: str


def test_of(text: str) -> Test:
    """`question=arm:floor`. Raises ConfigError."""
    question, _, pair = text.partition("=")
    arm, _, floor = pair.partition(":")
    if question not in QUESTIONS or not arm or not floor:
        rule = f"one of {', '.join(QUESTIONS)}, then =arm:floor, e.g. motion=moving-3d-infonce:static-3d-infonce"
        raise ConfigError(f"tests = {text}: {rule}")
    return Test(question, arm, floor)


@dataclass(frozen=True)
class Study:
    """What is compared, and how long everything takes."""

    arms: tuple[str, ...] = (SCRATCH, "moving-3d-infonce")
    candidates: tuple[str, ...] = ()  # of which `best` is the best by linear probe
    screened: tuple[str, ...] = ()  # by probes alone
    tests: tuple[str, ...] = ()  # of the comparison, each question=arm:floor; for every measure and share of labels
    measures: tuple[str, ...] = ("segmentation",)
    rooms: int = 60  # built-in ones, of each of two seeds; every fifth is judged on
    samples_seed: int = 2  # of the first three stages' rooms, those of the comparison have the next
    sequences: int = 20  # a scan
    label_space: str = "auto"  # of your own labels
    net_3d: str = "small"
    net_4d: str = "small-4d"
    voxel_m: float = 0.15
    voxel_4d_m: float = 0.3
    pretrain_steps: int = 500  # of an arm of cost 1
    seeds: int = 5  # of pre-training, in the comparison
    tuning_seeds: int = 1  # in each of the first three stages
    percents: tuple[float, ...] = (10.0,)  # of the learned rooms, whose labels are used
    subsets: int = 1  # of these rooms, for every seed and share
    lengths: tuple[int, ...] = (320, 640, 1280)  # of fine-tuning, rising
    gain: float = 1.0  # points of scratch's score on validation rooms that make the next length worth its time
    long_factor: float = 3.5  # time of a pre-training step, in fine-tuning steps: what `longer` adds
    recipes: tuple[str, ...] = ("all:1", "all:2")
    looks: int = 8  # at the judged rooms on the way through fine-tuning
    samples: int = 10_000  # of the probes
    queries: int = 10_000

    def __post_init__(self):
        counts = ("sequences", "pretrain_steps", "seeds", "tuning_seeds", "subsets", "looks", "samples", "queries")
        known, tests = set(self.arms), [test_of(text) for text in self.tests]
        listed = {name: getattr(self, name) for name in ("arms", "candidates", "screened", "measures", "percents")}
        listed["recipes"] = tuple(recipe_of(text) for text in self.recipes)
        rules = [
            ("arms", known <= {*ARMS, BEST}, f"of {', '.join(ARMS)}, {BEST}"),
            ("arms", SCRATCH in self.arms, "scratch among them, which says how long to fine-tune"),
            *((name, len(set(given)) == len(given), "each once") for name, given in listed.items()),
            ("screened", set(self.screened) <= set(ARMS), "of " + ", ".join(ARMS)),
            ("candidates", set(self.candidates) <= set(ARMS) - known, "arms that are not compared anyway"),
            ("candidates", all(ARMS[arm].method for arm in self.candidates if arm in ARMS), "arms with pre-training"),
            ("candidates", (BEST in known) == bool(self.candidates), "arms, if best is compared, and none if not"),
            ("tests", all({x.arm, x.floor} <= known and x.arm != x.floor for x in tests), "each of two of the arms"),
            ("tests", len({(x.arm, x.floor) for x in tests}) == len(tests), "each pair of arms once"),
            ("measures", self.measures and set(self.measures) <= set(MEASURES), "of " + ", ".join(MEASURES)),
            ("rooms", self.rooms >= 3, "at least 3: two to learn from and one to be judged on"),
            ("samples_seed", self.samples_seed >= 0, "a whole number from 0 on"),
            ("seeds", self.seeds <= _TUNING_SEEDS, f"{_TUNING_SEEDS} at most"),
            ("percents", all(0 < percent <= 100 for percent in self.percents), "above 0, and 100 at most"),
            ("subsets", self.subsets <= 1000, "1000 at most"),
            ("lengths", bool(self.lengths) and list(self.lengths) == sorted(set(self.lengths)), "rising numbers"),
            ("lengths", all(n > 0 and n % self.looks == 0 for n in self.lengths), f"multiples of looks = {self.looks}"),
            *positive(self, *counts),
        ]
        check(self, rules)
        ways = {recipe.way for recipe in listed["recipes"]}
        fits = "head-first" not in ways or set(self.measures) == {"segmentation"}
        rule = ("recipes", fits, "head-first is for segmentation alone: probes know classes of points")
        check(self, [("recipes", bool(self.recipes), "at least one"), rule])

    @property
    def probed(self) -> list[str]:
        """All arms that the screen probes."""
        every = dict.fromkeys((*self.arms, *self.candidates, *self.screened))
        return [arm for arm in every if arm != BEST and not ARMS[arm].longer]

    @property
    def planned(self) -> list[tuple[str, float, Test]]:
        """Every test that is made, (measure, share of labels, test): those that Holm corrects for."""
        tests = [test_of(text) for text in self.tests]
        return [(measure, percent, test) for measure in self.measures for percent in self.percents for test in tests]


class Cell(NamedTuple):
    """One piece of a study's work: an arm of a seed, with the labels of a subset, by a recipe. steps: of fine-tuning,
    0 for a probe."""

    stage: str
    arm: str
    seed: int
    measure: str
    percent: float
    subset: int
    recipe: str
    steps: int

    @property
    def name(self) -> str:
        """Of its files."""
        recipe = self.recipe.replace(":", "x")
        parts = (self.stage, self.arm, self.seed, self.measure, f"{self.percent:g}", self.subset, recipe)
        return "_".join(map(str, (*parts, self.steps)))

    @property
    def pair_seed(self) -> int:
        """Of the choice of labels, of head and batches: the same in all arms."""
        return 1000 * self.seed + self.subset


class Chosen(NamedTuple):
    """What validation rooms chose: `best`, of each measure and share the steps of fine-tuning, and of an arm besides
    its recipe."""

    best: str
    steps: dict[tuple[str, float], int]
    recipe: dict[tuple[str, float, str], str]


def length_cells(study: Study) -> list[Cell]:
    """Scratch by the middle recipe, with every number of steps, unless there is but one."""
    if len(study.lengths) == 1:
        return []
    middle = study.recipes[len(study.recipes) // 2]
    return [
        Cell("length", SCRATCH, seed, measure, percent, 0, middle, steps)
        for seed in tuning_seeds(study)
        for measure in study.measures
        for percent in study.percents
        for steps in study.lengths
    ]


def screen_cells(study: Study) -> list[Cell]:
    """All arms but `best`, by probes, if there is more than the comparison probes anyway. Scratch is a random net."""
    if not study.candidates and not study.screened:
        return []
    seeds, percent = tuning_seeds(study), study.percents[-1]
    return [Cell("screen", arm, seed, "probes", percent, 0, "-", 0) for seed in seeds for arm in study.probed]


def tries_cells(study: Study, chosen: Chosen) -> list[Cell]:
    """Every compared arm by every recipe, unless there is but one."""
    if len(study.recipes) == 1:
        return []
    return [
        Cell("tries", arm, seed, measure, percent, 0, recipe, steps_of(study, arm, steps))
        for seed in tuning_seeds(study)
        for (measure, percent), steps in chosen.steps.items()
        for arm in study.arms
        for recipe in study.recipes
    ]


def compare_cells(study: Study, chosen: Chosen) -> list[Cell]:
    """All pairs, side by side, so that a study that stops early has seen all arms alike, and a probe of every model. A
    subset of all labels is always the same, but its seed differs."""
    cells = []
    for seed in range(study.seeds):
        for subset in range(study.subsets):
            for of, steps in chosen.steps.items():
                made = {arm: (chosen.recipe[*of, arm], steps_of(study, arm, steps)) for arm in study.arms}
                cells += [Cell("compare", arm, seed, *of, subset, *how) for arm, how in made.items()]
        probed = [arm for arm in study.arms if arm == BEST or not ARMS[arm].longer]
        cells += [Cell("compare", arm, seed, "probes", study.percents[-1], 0, "-", 0) for arm in probed]
    return cells


def cells_of(study: Study, chosen: Chosen, stage: str) -> list[Cell]:
    """The cells of a stage, given what those before it chose."""
    match stage:
        case "length":
            return length_cells(study)
        case "screen":
            return screen_cells(study)
        case "tries":
            return tries_cells(study, chosen)
        case _:
            return compare_cells(study, chosen)


def tuning_seeds(study: Study) -> range:
    """Of the first three stages."""
    return range(_TUNING_SEEDS, _TUNING_SEEDS + study.tuning_seeds)


def steps_of(study: Study, arm: str, steps: int) -> int:
    """Of fine-tuning an arm, where others make `steps`: a multiple of the looks."""
    if arm == BEST or not ARMS[arm].longer:
        return steps
    more = study.long_factor * study.pretrain_steps
    return steps + study.looks * max(1, round(more / study.looks))


# Settings of its runs ------------------------------------------------------------------------------------------------


def pretrain_config(study: Study, arm: str, seed: int) -> PretrainConfig:
    """How an arm is pre-trained."""
    way = ARMS[arm]
    base = change(
        PRETRAINING["small"],
        **{path: getattr(study, name) for path in leaves(PretrainConfig) if (name := path.rpartition(".")[2]) in NETS},
        method=way.method,
        precision="float32",  # the same on every device
        checkpoint_steps=100,
        log_steps=10,
        **{"run.steps": max(1, round(study.pretrain_steps / way.cost)), "run.seed": seed, "run.workers": 1},
    )
    return resolve("arm", way.settings, {"arm": base})


def finetune_config(study: Study, cell: Cell) -> FinetuneConfig:
    """How a cell is fine-tuned. Its labels are chosen by the study."""
    base, recipe = PRESETS_OF[MEASURES[cell.measure]]["small"], recipe_of(cell.recipe)
    every = max(1, cell.steps // study.looks)
    return change(
        base,
        net=study.net_3d,
        freeze="backbone" if recipe.way == "frozen" else "nothing",
        scales=LAYERED if recipe.way == "layered" else (),
        radius_m=_RADIUS * study.voxel_m,
        precision="float32",
        workers=0,
        steps=cell.steps,
        validate_steps=every,
        checkpoint_steps=every,
        log_steps=every,
        **{"backbone.voxel_m": study.voxel_m, "optim.lr": base.optim.lr * recipe.factor, "run.seed": cell.pair_seed},
    )


def probe_config(study: Study, cell: Cell) -> ProbeConfig:
    """How a cell's features are probed."""
    return change(
        PROBES["small"],
        net=study.net_3d,
        voxel_m=study.voxel_m,
        samples=study.samples,
        queries=study.queries,
        seed=cell.pair_seed,
    )


# What it costs -------------------------------------------------------------------------------------------------------


class Costs(NamedTuple):
    """Seconds of one process: of a pre-training step by arm, of a fine-tuning step and of a look at one judged scan by
    measure, of a probe; and how many scans are judged."""

    pretrain: dict[str, float]
    step: dict[str, float]
    look: dict[str, float]
    probe: float
    judged: float


def seconds_of_stages(study: Study, costs: Costs) -> dict[str, float]:
    """Seconds of one process that each stage takes at most: if the longest fine-tuning and the dearest candidate are
    chosen."""
    dearest = max(study.candidates, key=lambda arm: costs.pretrain[pretrained_as(arm)] / ARMS[arm].cost, default="")
    of = [(measure, percent) for measure in study.measures for percent in study.percents]
    recipe = {(*one, arm): study.recipes[0] for one in of for arm in study.arms}
    chosen = Chosen(dearest, dict.fromkeys(of, study.lengths[-1]), recipe)
    found, trained = {}, set()
    for stage in STAGES:
        found[stage] = 0.0
        for cell in cells_of(study, chosen, stage):
            arm = dearest if cell.arm == BEST else cell.arm
            name = pretrained_as(arm)
            if name and (name, cell.seed) not in trained:
                trained.add((name, cell.seed))
                found[stage] += costs.pretrain[name] * pretrain_config(study, arm, cell.seed).run.steps
            if cell.measure == "probes":
                found[stage] += costs.probe
            else:
                looks = study.looks * costs.judged * costs.look[cell.measure]
                found[stage] += costs.step[cell.measure] * cell.steps + looks
    return found


_TESTS = (
    "pretraining=moving-3d-infonce:scratch",
    "pretraining=moving-3d-infonce:scratch-long",
    "motion=moving-3d-infonce:static-3d-infonce",
    "4d=4dcontrast:moving-3d",
    "other=best:moving-3d-infonce",
    "other=moving-3d-infonce-norms:scratch",
)
_CONTROLS = (
    "static-3d",
    "static-3d-hardest",
    "moving-3d-infonce-unsampled",
    "moving-3d-infonce-resting",
    "4dcontrast-printed",
)
_SMALL = Study(
    arms=(
        SCRATCH,
        "scratch-long",
        "static-3d-infonce",
        "moving-3d-infonce",
        "moving-3d-infonce-norms",
        "moving-3d",
        "4dcontrast",
        BEST,
    ),
    candidates=(
        "moving-3d-hardest",
        "4dcontrast-hardest",
        "moving-3d-infonce-uniform",
        "moving-3d-csc",
        "moving-3d-vicreg",
        "moving-3d-msc",
        "moving-3d-distill",
        "moving-3d-votes",
    ),
    screened=_CONTROLS,
    tests=_TESTS,
)

STUDIES = {
    "small": _SMALL,
    # Of 1.2 million steps, 0.2 of them pre-training: 12 hours of an H200 that 8 processes share, 6 under MPS, computed.
    "full": replace(
        _SMALL,
        rooms=200,
        net_3d="14a",
        net_4d="14a",
        voxel_m=0.05,
        voxel_4d_m=0.1,
        pretrain_steps=5000,
        percents=(5.0, 20.0),
        lengths=(1600, 3200, 6400),
        long_factor=2.0,
        recipes=("all:0.5", "all:1", "all:2"),
        samples=50_000,
        queries=20_000,
    ),
    "own": replace(
        _SMALL,
        arms=(SCRATCH, "scratch-long", "moving-3d-infonce"),
        candidates=(),
        screened=(),
        tests=("pretraining=moving-3d-infonce:scratch", "pretraining=moving-3d-infonce:scratch-long"),
        voxel_m=0.1,
        voxel_4d_m=0.2,
        percents=(100.0,),
        lengths=(600, 1200, 2400),
        long_factor=2.5,
    ),
}
