"""`make bench`: what gen4d costs, against references that do the same work in the same run.

    python -m benchmarks            everything but `frames`, `shapes`, `scale`, `views` and `objects`
    python -m benchmarks pipeline   one part: pipeline, build (with reading) or loader
    python -m benchmarks frames     posed depth images: reading, overlaps, pairs; only when asked for
    python -m benchmarks shapes     a build with 3,000 shapes of real size; only when asked for
    python -m benchmarks scale      a simulated data set of 100,000 scans; only when asked for, it takes minutes
    python -m benchmarks views      views of 1,000 shapes; only when asked for
    python -m benchmarks objects    instances and boxes at the size of ScanNet's benchmark; only when asked for
    python -m benchmarks gpu ...    steps of pre-training on a GPU; `gpu --help` lists what can be varied
    python -m benchmarks sharing ... small runs that share a GPU; `sharing --help`
    python -m benchmarks points ... steps of STRL with nets on points; `points --help`
    python -m benchmarks terms ...  what predictors of their own change, three seeds each; `terms --help`

Ratios count; times depend on the machine, which is printed. `loader`, `scale` and `objects` need the packages of the
trainer.
"""

import importlib
import os
import platform
import sys

PARTS = ("pipeline", "build", "loader", "frames", "shapes", "scale", "views", "objects")
WITH_OPTIONS = ("gpu", "sharing", "points", "terms")


def main(parts: list[str]) -> None:
    """Run the named parts, or the first three."""
    if parts[:1] and parts[0] in WITH_OPTIONS:
        importlib.import_module(f"benchmarks.{parts[0]}").main(parts[1:])
        return
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        sys.exit(f"{unknown[0]!r} is not a part: {', '.join(PARTS + WITH_OPTIONS)}")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for part in parts or PARTS[:3]:
        match part:
            case "pipeline":
                from benchmarks import generator

                generator.pipeline()
            case "build":
                from benchmarks import generator

                generator.build()
            case "loader":
                from benchmarks import loader

                loader.main()
            case "frames":
                from benchmarks import frames

                frames.main()
            case "shapes":
                from benchmarks import shapes

                shapes.main()
            case "scale":
                from benchmarks import scale

                scale.main()
            case "views":
                from benchmarks import views

                views.main()
            case "objects":
                from benchmarks import objects

                objects.main()


if __name__ == "__main__":
    main(sys.argv[1:])
