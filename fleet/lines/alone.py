"""`fedge demo`, `simulate`, `chaos` and `codec`: what needs no fleet that runs already."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fleet.lines.options import BASE, HOW, TABLES, Table, add, add_columns, count, group
from fleet.lines.saying import source_on_the_line
from runtime.settings import SettingsError


def add_demo(table: Table) -> None:
    """Add `fedge demo`."""
    demo = add(
        table,
        "demo",
        run_demo,
        "Start a broker, an aggregator and ten devices, and watch them train one model together.",
        "fedge demo --job job.toml --data readings.csv --partition column:site",
    )
    demo.add_argument("--devices", type=count, default=10, metavar="N", help="device processes (10)")
    demo.add_argument("--job", type=Path, metavar="FILE", help="another job than the handwritten digits")
    demo.add_argument("--data", metavar="FILE", help=f"train on these rows: {TABLES}")
    demo.add_argument("--partition", metavar="HOW", help=f"{HOW} (iid), of --data")
    demo.add_argument("--test", type=Path, metavar="FILE", help="rows to test on; else a fifth of --data")
    add_columns(demo)
    demo.add_argument("--out", type=Path, default=Path("fedge-demo"), metavar="DIR", help="where the results go")
    demo.add_argument("--json", action="store_true", help="print summary.json at the end, and nothing else")
    demo.add_argument("--no-web", action="store_true", help="show no page in the browser meanwhile")


def add_simulate(table: Table) -> None:
    """Add `fedge simulate`."""
    simulate = add(
        table,
        "simulate",
        run_simulate,
        "Run a job on simulated devices in one process: the same code as on real ones, without the network.",
        "fedge simulate job.toml --data digits --devices 100 --partition dirichlet:0.5",
    )
    simulate.add_argument("job", type=Path, metavar="JOB.toml")
    simulate.add_argument("--data", required=True, metavar="FILE|digits", help=f"all devices' rows together: {TABLES}")
    simulate.add_argument("--devices", type=count, default=10, metavar="N")
    simulate.add_argument(
        "--partition",
        default="iid",
        metavar="HOW",
        help=HOW,
    )
    simulate.add_argument("--test", type=Path, metavar="FILE", help="a test split; else a fifth of the data")
    add_columns(simulate)
    simulate.add_argument("--rounds", type=count, metavar="R", help="instead of the job's max_rounds")
    simulate.add_argument("--seed", type=int, metavar="S", help="instead of the job's seed")
    simulate.add_argument(
        "--target", metavar="[MEASURE=]VALUE", help="stop at this accuracy, or at a measure: rmse=4, recall:fault=0.9"
    )
    simulate.add_argument("--base", type=Path, metavar="FILE", help=BASE)
    simulate.add_argument("--out", type=Path, metavar="DIR", help="leave model.onnx, metrics.csv and curves there")
    simulate.add_argument("--keys", action="store_true", help="everybody signs, and checks what it hears")
    simulate.add_argument("--json", type=Path, metavar="FILE", help="write every round there; - for standard output")


def add_chaos(table: Table) -> None:
    """Add `fedge chaos`."""
    chaos = add(
        table,
        "chaos",
        run_chaos,
        "Kill aggregator, broker and devices everywhere, and compare the model with an undisturbed run's.",
        "fedge chaos --kills 120 --json chaos.json",
    )
    chaos.add_argument(
        "--devices", type=count, default=5, metavar="N", help="device processes (5), and one that claims too much"
    )
    chaos.add_argument("--rounds", type=count, default=20, metavar="N", help="versions to make (20)")
    chaos.add_argument("--kills", type=count, default=120, metavar="K", help="(120)")
    chaos.add_argument("--seed", type=int, default=1, metavar="S", help="another schedule of kills (1)")
    chaos.add_argument("--minutes", type=float, default=30.0, metavar="M", help="no kills after this (30)")
    chaos.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chaos.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="logs, traces and states (a temporary folder, kept where it is not good)",
    )
    chaos.add_argument(
        "--executor",
        choices=("inline", "threads", "processes"),
        default="threads",
        help="where the aggregator evaluates versions (threads)",
    )
    chaos.add_argument("--keys", action="store_true", help="everybody signs, and believes signed words alone")
    chaos.add_argument(
        "--sabotage",
        choices=("ledger", "outbox", "rename"),
        help="take a safeguard out, to see that its lack is noticed",
    )


def add_codec(table: Table) -> None:
    """Add `fedge codec`."""
    codec = group(table, "codec", "The update codec.", "fedge codec measure update.npz")
    measure = add(
        codec,
        "measure",
        codec_measure,
        "Say what the codec would do to your updates, next to the baselines.",
        "fedge codec measure update.npz --buckets 6144",
    )
    measure.add_argument("update", type=Path, metavar="UPDATE.npz", help="one array per tensor")
    measure.add_argument("--codec", default="sketch", metavar="NAME", help="sketch, float32 or int8 (sketch)")
    measure.add_argument("--buckets", type=count, metavar="M", help="of the sketch (an eighth of the coordinates)")
    measure.add_argument("--bits", type=int, default=1, metavar="B", help="a bucket, 1 to 4 (1)")
    measure.add_argument("--json", type=Path, metavar="FILE", help="write the rows there; - for standard output")


def run_demo(arguments: argparse.Namespace) -> int:
    from fleet.demo.command import demo
    from fleet.demo.given import Data

    more = arguments.partition, arguments.features, arguments.label, arguments.source, arguments.test
    if arguments.data is None and any(one is not None for one in more):
        raise SettingsError("--partition, --test, --features, --label and --source are of a file: name it with --data")
    data = None if arguments.data is None else Data(arguments.data, *more)
    with source_on_the_line():
        page = not arguments.no_web and not arguments.json
        return demo(arguments.out, arguments.devices, arguments.job, as_json=arguments.json, data=data, page=page)


def run_simulate(arguments: argparse.Namespace) -> int:
    from fleet.simulation.report import command

    with source_on_the_line():
        return command(arguments)


def run_chaos(arguments: argparse.Namespace) -> int:
    from fleet.chaos.command import command

    return command(arguments)


def codec_measure(arguments: argparse.Namespace) -> int:
    from fleet.console.measure import measure, table

    rows = measure(arguments.update, arguments.codec, arguments.buckets, arguments.bits)
    if arguments.json is not None:
        text = json.dumps({"rows": rows}, indent=2)
        if arguments.json == Path("-"):
            print(text)
            return 0
        arguments.json.write_text(text + "\n", encoding="utf-8")
    print(table(rows))
    return 0
