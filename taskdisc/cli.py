"""The commands. Thin: they read options, call the package, print. Heavy imports are inside."""

import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from taskdisc.errors import RunFailedError, SettingError, TaskdiscError, did_you_mean
from taskdisc.pool import interruptible, stopped_status

if TYPE_CHECKING:
    from taskdisc.methods import Method

MOST_PRINTED = 100
"""Rows of a study's table that are printed; all are in its file."""

app = typer.Typer(
    name="taskdisc",
    help="Discover binary tasks that a network generalises on, in images that nobody labelled, "
    "and train several tasks together.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="Settings, a YAML file; see configs/search/."),
]
Changes = Annotated[
    list[str], typer.Option("--set", metavar="PATH=VALUE", help="Change one setting; repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of the run; images.seed draws the images.")]
Jobs = Annotated[int, typer.Option(help="Workers; 0 is one per core or GPU. Same result for any.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<index>.")]
ClusterAt = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="ADDRESS",
        help="A Dask scheduler, tcp://host:port or its --scheduler-file, whose workers do the work "
        "instead; README, Many machines.",
    ),
]
Root = Annotated[Path | None, typer.Option(help="Where the images are; sets images.root.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch the images if missing.")]
Out = Annotated[Path | None, typer.Option(help="Run folder; a new one in runs/.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with this run folder.")]
ShowSettings = Annotated[
    bool, typer.Option("--show-settings", help="Print all settings as YAML and stop.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"taskdisc {version('taskdisc')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Discover binary tasks that a network generalises on, in images that nobody labelled."""


@app.command()
def search(
    config: Config = None,
    changes: Changes = [],  # noqa: B006  (typer reads the default, nothing changes it)
    out: Out = None,
    resume: Resume = None,
    tasks: Annotated[int | None, typer.Option(help="Labelings to confirm.")] = None,
    min_ablation: Annotated[
        float | None, typer.Option(help="Share of positives in which these must differ.")
    ] = None,
    known: Annotated[
        list[str],
        typer.Option(help="Stay away from: classes, a run, a .csv or .npz of labels; repeatable."),
    ] = [],  # noqa: B006
    features: Annotated[
        str | None,
        typer.Option(help="What the closed form compares: random, FILE.npy, torchvision:NAME."),
    ] = None,
    seed: Seed = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    cluster: ClusterAt = None,
    root: Root = None,
    download: Download = False,
    as_json: AsJson = False,
    show_settings: ShowSettings = False,
) -> None:
    """Search an image set for tasks and confirm them; without options, scikit-learn's digits."""
    from taskdisc.cluster import pool_for
    from taskdisc.config import SearchSettings, dump_settings
    from taskdisc.discovery.folder import GALLERY, new_folder, open_folder
    from taskdisc.discovery.proposers import check_proposer
    from taskdisc.discovery.run import check_run, load_selected, run_search
    from taskdisc.folder import check_images, rounding_note
    from taskdisc.progress import progress_for
    from taskdisc.report.page import write_report

    given: dict[str, Any] = {
        "tasks": tasks,
        "min_ablation": min_ablation,
        "known": known or None,
        "closed_form.features": features,
    }
    given = {name: value for name, value in given.items() if value is not None}
    options = [*changes, *(f"{name}={json.dumps(value)}" for name, value in given.items())]
    if show_settings:
        print(dump_settings(_settings(SearchSettings, config, options, seed, root, download)))
        return
    pool = pool_for(jobs, device, cluster)
    with progress_for() as progress:
        if resume is None:
            settings = _settings(SearchSettings, config, options, seed, root, download)
            check_proposer(settings.proposer)
            images = load_selected(settings.images, progress)
            space = check_run(images, settings, pool)
            if space.memory > 1e9:
                _say(f"memory for the closed form: {space.memory / 1e9:.1f} GB", as_json)
            folder = new_folder(out, settings, images, pool)
        else:
            if config or options or out or seed is not None or root or download:
                raise SettingError(
                    "--resume must stand without CONFIG, --out and other settings, for it goes on "
                    f"with those of '{resume}'."
                )
            folder, settings = open_folder(resume)
            images = load_selected(settings.images, progress)
            check_images(folder.path, images)
        _say(f"run folder: {folder.path}", as_json)
        _say_notes(rounding_note(folder.path, pool), as_json=as_json)
        try:
            result = run_search(images, settings, pool, folder=folder, progress=progress)
        except KeyboardInterrupt:
            progress.finish()
            write_report(folder.path)
            done = folder.trials.lines
            # Of two stages the second says more than the first.
            scored = folder.trained.lines or done
            best = max((line["taskness"] for line in scored), default=None)
            seen = "" if best is None else f", best taskness seen {best:.3f} (not confirmed)"
            where = _where_stopped(len(done), settings.budget, len(folder.evidence.lines))
            print(
                f"stopped {where}{seen}; go on with: taskdisc search --resume {folder.path}",
                file=sys.stderr,
            )
            raise SystemExit(stopped_status()) from None
    page = write_report(folder.path)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    else:
        _print_tasks(result.to_dict())
        print(f"page: {page}")
        print(f"gallery: {page.with_name(GALLERY)}")


@app.command()
def score(
    labels: Annotated[Path, typer.Argument(help="A .csv (a labeling per row) or .npz file.")],
    config: Config = None,
    changes: Changes = [],  # noqa: B006
    seed: Seed = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    cluster: ClusterAt = None,
    root: Root = None,
    download: Download = False,
    with_evidence: Annotated[
        bool, typer.Option("--confirm", help="Also against random labelings: p and T_task.")
    ] = False,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Agreement of network pairs on other images.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score given labelings of an image set; a run's config.yaml names the images of its tasks."""
    from taskdisc.config import SearchSettings
    from taskdisc.discovery.run import load_selected
    from taskdisc.discovery.tasks import check_made_for
    from taskdisc.labelings import check_labelings, read_labelings
    from taskdisc.progress import progress_for
    from taskdisc.taskness import confirm as confirmation
    from taskdisc.taskness.score import score as score_labelings

    settings = _settings(SearchSettings, config, changes, seed, root, download)
    if agreement:
        if with_evidence:
            raise SettingError(
                "--agreement must stand without --confirm, which measures taskness; "
                "give one at a time."
            )
        _score_agreement(labels, settings, jobs, device, cluster, as_json)
        return
    labelings = read_labelings(labels)
    if with_evidence:
        confirmation.check_positives(labelings)
    with progress_for() as progress:
        images = load_selected(settings.images, progress)
        labelings = check_labelings(labelings, len(images), name=str(labels))
        check_made_for(labels, images)
        progress.start("score", len(labelings), "labelings")
        scores = score_labelings(
            images,
            labelings,
            protocol=settings.protocol,
            seed=settings.seed,
            jobs=jobs,
            device=device,
            cluster=cluster,
            progress=progress.advance,
        )
    rows: list[dict[str, Any]] = [
        {"labeling": i, "taskness": float(mean), "sem": float(sem)}
        for i, (mean, sem) in enumerate(zip(scores.taskness, scores.sem, strict=True))
    ]
    threshold = None
    if with_evidence:
        evidence = confirmation.confirm(
            images,
            labelings,
            protocol=settings.protocol,
            seed=settings.seed,
            jobs=jobs,
            device=device,
            cluster=cluster,
            progress=progress,
            **{**settings.confirm.model_dump(), "n_random": settings.n_random},
        )
        threshold = evidence.threshold
        for i, row in enumerate(rows):
            row.update(
                confirmed=float(evidence.mean[i]),
                confirmed_sem=float(evidence.sem[i]),
                p_adjusted=float(evidence.p_adjusted[i]),
            )
    if as_json:
        print(json.dumps({"threshold": threshold, "labelings": rows}, indent=2))
        return
    _print_table(rows)
    if threshold is not None:
        print(f"threshold T_task: {threshold:.3f}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write the page of a run again, from the files in its folder."""
    from taskdisc.folder import REPORT, SEARCH, made_by

    if made_by(folder) == SEARCH:
        from taskdisc.report.page import write_report

        write_report(folder)
    else:
        from taskdisc.studies.run import write_study

        write_study(folder)
    print(folder / REPORT)


@app.command()
def export(
    folders: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Finished runs over the same images.")
    ],
    keep: Annotated[
        Path | None, typer.Option(help="What was kept in the gallery; without it, all tasks.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All labelings, those that proved to be no tasks too.")
    ] = False,
    format: Annotated[
        str | None, typer.Option(help="npz, csv, parquet or torch; npz, or by the ending of --out.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file; <run>-tasks with the ending of its format here.")
    ] = None,
) -> None:
    """Write the tasks of runs, or what was kept in the gallery, to one file."""
    from taskdisc.discovery.export import export_tasks
    from taskdisc.discovery.formats import format_of

    ending = format_of(out, format).ending
    file = Path(f"{folders[0].resolve().name}-tasks{ending}") if out is None else out
    exported = export_tasks(folders, file, keep, format, every=every)
    n_tasks = sum(row.is_task for row in exported)
    print(f"labelings: {len(exported)}, confirmed as tasks: {n_tasks}")
    print(f"file: {file}")


@app.command()
def propagate(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A finished run, or a file of taskdisc export.")
    ],
    images: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Images to label; the run's own source.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Where the images are.")] = None,
    split: Annotated[str | None, typer.Option(help="Which split; the run's own.")] = None,
    download: Download = False,
    config: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Or: settings whose images are labelled.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="What was kept in the gallery; without it, all tasks.")
    ] = None,
    abstain: Annotated[float, typer.Option(help="Share of the images that get no label.")] = 0.2,
    members: Annotated[int, typer.Option(help="Networks per task, an even number.")] = 10,
    out: Annotated[
        Path | None,
        typer.Option(help="The file, in any format of export; <run>-propagated.npz here."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of folds, networks and random labelings.")] = 0,
    jobs: Jobs = 0,
    device: Device = "auto",
    cluster: ClusterAt = None,
    as_json: AsJson = False,
) -> None:
    """Predict the tasks of a run on all images of its source, and say whether that makes sense."""
    from taskdisc.discovery import propagate as propagation
    from taskdisc.discovery.run import load_source
    from taskdisc.files import write_atomic
    from taskdisc.progress import progress_for
    from taskdisc.report.propagation import picture
    from taskdisc.taskness.lenet import SIDE

    name = run.resolve().name if run.is_dir() else run.stem
    file = Path(f"{name}-propagated.npz") if out is None else out
    propagation.check_out(file)
    given = {"source": images, "root": root and str(root), "split": split, "download": download}
    settings = propagation.images_to_label(run, config, given)
    tasks = propagation.tasks_to_propagate(run, keep)
    with progress_for() as progress:
        loaded = load_source(settings, progress).resized(SIDE)
        propagated = propagation.propagate_tasks(
            tasks,
            loaded,
            run,
            progress,
            n_members=members,
            abstain=abstain,
            seed=seed,
            jobs=jobs,
            device=device,
            cluster=cluster,
        )
    propagation.write_propagated(file, propagated, settings)
    drawn = file.with_suffix(".png")
    write_atomic(drawn, picture(propagated))
    rows = propagated.rows
    if as_json:
        counts = {"images": len(loaded), "known": int((propagated.places.known >= 0).sum())}
        print(json.dumps({**counts, "tasks": _finite(rows)}, indent=2))
        return
    _print_table(
        [
            {
                "task": row["task"],
                "sensible": "yes" if row["sensible"] else "no",
                "agreement": row["agreement"],
                "kappa": row["kappa"],
                "expected kappa": row["expected_kappa"],
                "random up to": row["limit"],
                "calibration error": row["calibration_error"],
                "by chance": row["calibration_by_chance"],
                "labelled": row["labelled"],
                "yes": row["yes"],
                "in the run": row["yes_known"],
            }
            for row in rows
        ]
    )
    n_known = len(tasks.hashes)
    n_sensible = sum(row["sensible"] for row in rows)
    print(
        f"{n_sensible} of {len(rows)} tasks make sense on the other {len(propagated.places.others)}"
        f" images, by {n_known} that were labelled: halves of their ensembles agree beyond those of"
        " random labelings."
    )
    print(f"file: {file}")
    print(f"probabilities: {propagation.confidence_file(file)}")
    print(f"picture: {drawn}")


@app.command()
def runs(
    folder: Annotated[
        Path | None, typer.Argument(help="Where the run folders are; runs/ by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs below a folder."""
    from taskdisc.folder import RUNS
    from taskdisc.listing import NOTHING, list_runs

    rows = [] if folder is None and not RUNS.is_dir() else list_runs(folder or RUNS)
    if as_json:
        print(json.dumps(rows, indent=2))
    elif rows:
        columns = [name for name in rows[0] if any(row[name] != NOTHING for row in rows)]
        _print_table([{name: row[name] for name in columns} for row in rows])
    else:
        print(f"no runs in '{folder or RUNS}'; make one with: taskdisc search")


@app.command()
def images(
    source: Annotated[str | None, typer.Argument(help="Name of an image set.")] = None,
    root: Root = None,
    split: Annotated[
        str, typer.Option(help="train, val, test or all, as the source has them.")
    ] = "train",
    target: Annotated[str | None, typer.Option(help="Whose classes are pictured.")] = None,
    download: Download = False,
    out: Annotated[Path | None, typer.Option(help="File of the contact sheet, .png.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count and picture an image set; without SOURCE, list all of them."""
    from taskdisc.images import SOURCES, load_images

    if source is None:
        _print_table([{"source": name, "what": row.summary} for name, row in SOURCES.items()])
        return
    from taskdisc.images.contact_sheet import class_sheet, summary
    from taskdisc.progress import progress_for, reading

    with progress_for() as progress:
        loaded = load_images(
            source, root=root, split=split, download=download, progress=reading(progress)
        )
    facts = summary(loaded)
    sheet = Path(f"{source}-{split}.png") if out is None else out
    try:
        class_sheet(loaded, target).save(sheet, format="PNG")
    except OSError as error:
        raise SettingError(
            f"--out must be a file that can be written, got '{sheet}' ({error.strerror})."
        ) from error
    if as_json:
        print(json.dumps({**facts, "contact_sheet": str(sheet)}, indent=2))
        return
    print(f"{source} ({split}): {facts['count']} images of shape {facts['shape']}")
    for name, counts in facts["targets"].items():
        least, most = min(counts.values()), max(counts.values())
        each = f"{least}" if least == most else f"{least} to {most}"
        shown = ", ".join(list(counts)[:12]) + (", …" if len(counts) > 12 else "")
        print(f"target {name}: {len(counts)} classes of {each} images: {shown}")
    print(f"contact sheet: {sheet}")


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which study.")] = None,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="Settings, a YAML file; see configs/studies/."),
    ] = None,
    changes: Changes = [],  # noqa: B006
    out: Out = None,
    resume: Resume = None,
    seed: Seed = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    cluster: ClusterAt = None,
    root: Root = None,
    download: Download = False,
    as_json: AsJson = False,
    show_settings: ShowSettings = False,
) -> None:
    """Run a learnability study, small and on digits without CONFIG; without NAME, list them."""
    from taskdisc.studies import STUDIES

    if name is None and resume is None:
        rows = {key: row for key, row in STUDIES.items() if not row.command}
        _print_table([{"study": key, "question": row.question} for key, row in rows.items()])
        return
    if name in STUDIES and STUDIES[name].command:
        raise SettingError(
            f"`study` must be a study without a command of its own, got {name!r}; "
            f"use: taskdisc {STUDIES[name].command}"
        )
    given = (config, changes, seed, root, download)
    _run_study(name, given, out, resume, jobs, device, cluster, as_json, show_settings)


@app.command()
def mtl(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="Settings, a YAML file; see configs/mtl/."),
    ] = None,
    changes: Changes = [],  # noqa: B006
    seeds: Annotated[
        int | None, typer.Option(help="Trainings of each row, from as many seeds.", min=1)
    ] = None,
    aux: Annotated[
        list[str],
        typer.Option(
            help="Also every row with these auxiliary tasks: a run, an exported file, random:RUN, "
            "random:K or classes:K; repeatable."
        ),
    ] = [],  # noqa: B006
    out: Out = None,
    resume: Resume = None,
    seed: Seed = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    cluster: ClusterAt = None,
    root: Root = None,
    download: Download = False,
    as_json: AsJson = False,
    show_settings: ShowSettings = False,
) -> None:
    """Compare ways of training several tasks; without CONFIG some of them, on digits."""
    changes = [*changes, *([] if seeds is None else [f"seeds={seeds}"])]
    given = (config, changes, seed, root, download)
    if aux:
        from taskdisc.studies.multi_task import ComparisonSettings, with_auxiliaries

        added = with_auxiliaries(_settings(ComparisonSettings, *given), aux)
        given = (config, [*changes, *added], seed, root, download)
    name = None if resume is not None and not any(given) else "mtl"
    _run_study(name, given, out, resume, jobs, device, cluster, as_json, show_settings)


def _run_study(
    name: str | None,
    given: tuple[Path | None, list[str], int | None, Path | None, bool],
    out: Path | None,
    resume: Path | None,
    jobs: int,
    device: str,
    cluster: str | None,
    as_json: bool,
    show_settings: bool,
) -> None:
    """Start a study with the settings that were given, or go on with one."""
    from taskdisc.cluster import pool_for
    from taskdisc.config import dump_settings
    from taskdisc.folder import REPORT, images_note, rounding_note
    from taskdisc.progress import progress_for
    from taskdisc.studies import STUDIES, command_of
    from taskdisc.studies.run import TABLE, new_study, open_study, run_study, study_named

    if name is not None:
        kind = study_named(name).settings
        if show_settings:
            print(dump_settings(_settings(kind, *given)))
            return
    pool = pool_for(jobs, device, cluster)
    with progress_for() as progress:
        if resume is None:
            assert name is not None
            folder = new_study(name, _settings(kind, *given), out, pool, progress)
        else:
            config, changes, seed, root, download = given
            if name or config or changes or out or seed is not None or root or download:
                raise SettingError(
                    "--resume must stand without a name, CONFIG, --out and settings, for it goes "
                    f"on with those of '{resume}'."
                )
            folder = open_study(resume, progress)
        _say(f"run folder: {folder.path}", as_json)
        notes = (images_note(folder.path), rounding_note(folder.path, pool))
        _say_notes(*notes, as_json=as_json)
        try:
            answer = run_study(folder, pool, progress)
        except KeyboardInterrupt:
            progress.finish()
            n_cells = len(STUDIES[folder.name].cells(folder.settings))
            command = command_of(folder.name).split()[0]
            print(
                f"stopped after {len(folder.cells.lines)} of {n_cells} cells; "
                f"go on with: taskdisc {command} --resume {folder.path}",
                file=sys.stderr,
            )
            raise SystemExit(stopped_status()) from None
    page = folder.path / REPORT
    if as_json:
        result = {"study": folder.name, "reading": answer.reading, "table": answer.table}
        print(json.dumps(_finite(result), indent=2, allow_nan=False))
    else:
        table = answer.summary or answer.table
        _print_table(table[:MOST_PRINTED])
        if len(table) > MOST_PRINTED:
            print(f"… {len(table) - MOST_PRINTED} more rows are in {folder.path / TABLE}")
        print(answer.reading)
        print(f"page: {page}")


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, with its settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List all that can be chosen by name: weightings, architectures, proposers, studies, …"""
    from taskdisc.methods import as_values
    from taskdisc.methods import methods as all_methods

    listed = all_methods()
    if name is not None:
        listed = {k: [row for row in rows if row.name == name] for k, rows in listed.items()}
        listed = {kind: rows for kind, rows in listed.items() if rows}
        if not listed:
            names = [row.name for rows in all_methods().values() for row in rows]
            raise SettingError(f"no method is named {name!r}; {did_you_mean(name, names)}")
    if as_json:
        print(json.dumps(as_values(listed), indent=2))
        return
    if name is not None:
        for kind, rows in listed.items():
            _print_method(kind, rows[0])
        return
    for kind, rows in listed.items():
        print(kind.replace("_", " "))
        _print_table(
            [
                {
                    "name": row.name,
                    "what": row.summary,
                    "needs": row.needs,
                    "from": f"{row.paper.authors} {row.paper.year}" if row.paper else "",
                }
                for row in rows
            ]
        )


class ScoreByDefault(TyperGroup):
    """`bench` without a name is `bench score`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] == "--help" or not args[0].startswith("-"))
        return super().parse_args(ctx, args if named else ["score", *args])


benches = typer.Typer(cls=ScoreByDefault, help="Time what the package does; `score` by default.")
app.add_typer(benches, name="bench")


@benches.command("score")
def bench_score(
    rounds: Annotated[int, typer.Option(help="Rounds of both sides in turn.", min=1)] = 5,
    jobs: Jobs = 0,
) -> None:
    """Labelings scored per second, against a plain pool of one network per worker."""
    from taskdisc.benches import score

    score.bench_score(rounds, jobs)


@benches.command("cluster")
def bench_cluster(
    rounds: Annotated[int, typer.Option(help="Rounds of all sides in turn.", min=1)] = 7,
    labelings: Annotated[int, typer.Option(help="Labelings of each round.", min=1)] = 40,
    simulated: Annotated[
        bool, typer.Option("--simulate", help="Also work out what many workers would bring.")
    ] = False,
) -> None:
    """How much faster two workers of a Dask scheduler score than one, and what an item costs."""
    from taskdisc.benches import cluster

    costs = cluster.bench_cluster(rounds, labelings)
    if simulated:
        cluster.simulate(costs)


@benches.command("scaling")
def bench_scaling(
    rounds: Annotated[int, typer.Option(help="Times that each size is run.", min=1)] = 3,
) -> None:
    """CPU time and peak memory against size, one thread; tables in Markdown."""
    from taskdisc.benches.scaling import MEASUREMENTS, costs, table

    for measurement in MEASUREMENTS:
        found = list(costs(measurement, rounds))
        print(f"{measurement.title}, {rounds} rounds:\n\n{table(measurement, found)}\n")


@benches.command("step")
def bench_step(
    rounds: Annotated[int, typer.Option(help="Rounds of all ways in turn.", min=1)] = 9,
) -> None:
    """Where the time of a training step goes, and how far PyTorch alone could get."""
    from taskdisc.benches import step

    step.bench_step(rounds)


@benches.command("stopping")
def bench_stopping(changes: Changes = [], jobs: Jobs = 0) -> None:  # noqa: B006
    """What stopping trainings early would save, and how many scores it would change."""
    from taskdisc.benches.stopping import savings
    from taskdisc.config import read_settings
    from taskdisc.pool import Pool
    from taskdisc.studies.score_reliability import PanelSettings

    for heading, rows in savings(read_settings(PanelSettings, None, changes), Pool(jobs, "cpu")):
        print(f"{heading}:")
        _print_table(
            [
                {
                    "stop after": f"{row.patience} steps",
                    "same g": f"{row.same:.3f}",
                    "steps done": f"{row.steps:.2f}",
                    "in fives": f"{row.together:.2f}",
                    "largest change": f"{row.largest:.3f}",
                    "rank": f"{row.rank:.4f}",
                }
                for row in rows
            ]
        )


@benches.command("mtl")
def bench_mtl(
    tasks: Annotated[str, typer.Option(help="Numbers of tasks, with commas between.")] = "2,8,32",
    weightings: Annotated[
        str | None, typer.Option(help="Weightings, with commas between; all by default.")
    ] = None,
    backbone: Annotated[
        str, typer.Option(help="A backbone, or {name: …, setting: value}.")
    ] = "{name: resnet, depth: 8}",
    batch: Annotated[int, typer.Option(help="Images per step.")] = 32,
    rounds: Annotated[int, typer.Option(help="Rounds of both sides in turn.")] = 4,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Also write a table, FILE.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time and memory of a training step by each weighting, against plain training."""
    from taskdisc.benches.mtl import BenchSettings, as_csv, bench, machine
    from taskdisc.config import read_settings
    from taskdisc.files import write_atomic
    from taskdisc.progress import progress_for

    changes = [f"tasks=[{tasks}]", f"backbone={backbone}"]
    changes += [] if weightings is None else [f"weightings=[{weightings}]"]
    settings = read_settings(BenchSettings, None, changes, batch=batch, rounds=rounds)
    where = machine(device)
    _say(
        f"{where}\nbatches of {batch} digits of 32 x 32 pixels, backbone {backbone}, "
        f"rounds: {rounds}",
        as_json,
    )
    costs = []
    with progress_for() as progress:
        for table in bench(settings, device, progress):
            costs += table.costs
            if out is not None:
                write_atomic(out, as_csv(costs))
            _say(f"\n{table.title}", as_json)
            if as_json:
                continue
            _print_table([cost.as_row() for cost in table.costs])
            for cost in table.costs:
                if cost.refused:
                    print(f"{cost.weighting}: {cost.refused}")
    if as_json:
        result = {
            "machine": where,
            "settings": settings.model_dump(mode="json"),
            "costs": [cost.as_record() for cost in costs],
        }
        print(json.dumps(result, indent=2))


@benches.command("export")
def bench_export(
    images: Annotated[int, typer.Option(help="Images of random pixels, an even number.")] = 50_000,
    tasks: Annotated[int, typer.Option(help="Random labelings as tasks.")] = 64,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Time and memory of exporting tasks, loading them and training on them."""
    from taskdisc.benches import export as bench
    from taskdisc.config import read_settings

    settings = read_settings(
        bench.ExportBenchSettings, None, [], images=images, tasks=tasks, batch=batch
    )
    _say(f"{images} images of 32 x 32 random pixels, {tasks} random labelings as tasks", as_json)
    rows = list(bench.bench_export(settings))
    if as_json:
        print(json.dumps({"settings": settings.model_dump(), "stages": rows}, indent=2))
        return
    _print_table(
        [
            {
                "stage": row["stage"],
                "seconds": f"{row['seconds']:.1f}",
                "peak [MB]": f"{row['peak_bytes'] / 1e6:.0f}",
                "decoded images [MB]": f"{row['image_bytes'] / 1e6:.0f}",
            }
            for row in rows
        ]
    )


def main() -> None:
    """Run a command; a user's error is one line on standard error and an exit status."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = "--debug" in sys.argv[1:]
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    with interruptible():
        try:
            app(arguments)
        except TaskdiscError as error:
            if debug:
                raise
            from taskdisc.names import printable

            print(f"taskdisc: {printable(str(error))}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except OSError as error:
            # A disk that fills up or a folder that vanishes; results so far are on disk.
            if debug:
                raise
            place = f" '{error.filename}'" if error.filename else ""
            why = error.strerror or error
            print(f"taskdisc: reading or writing{place} failed: {why}.", file=sys.stderr)
            raise SystemExit(RunFailedError.exit_code) from None
        except MemoryError:
            if debug:
                raise
            print(
                "taskdisc: out of memory; what was computed is kept: use fewer --jobs or images.",
                file=sys.stderr,
            )
            raise SystemExit(RunFailedError.exit_code) from None
        except KeyboardInterrupt:
            print("taskdisc: stopped.", file=sys.stderr)
            raise SystemExit(stopped_status()) from None


def _settings(
    kind: Any, config: Path | None, changes: list[str], seed: int | None, root: Any, download: bool
) -> Any:
    from taskdisc.config import read_settings

    options = [f"images.root={json.dumps(str(root))}"] if root else []
    options += ["images.download=true"] if download else []
    return read_settings(kind, config, [*changes, *options], seed=seed)


def _score_agreement(
    labels: Path, settings: Any, jobs: int, device: str, cluster: str | None, as_json: bool
) -> None:
    from taskdisc.cluster import pool_for
    from taskdisc.discovery.run import load_with_held_out
    from taskdisc.discovery.tasks import check_made_for
    from taskdisc.labelings import check_labelings, read_labelings
    from taskdisc.progress import progress_for
    from taskdisc.taskness.agreement import measure
    from taskdisc.taskness.confirm import check_positives

    pool = pool_for(jobs, device, cluster)
    asked = settings.agreement
    labelings = read_labelings(labels)
    if asked.n_random:
        check_positives(labelings)
    with progress_for() as progress:
        images, others = load_with_held_out(settings.images, asked, settings.seed, progress)
        labelings = check_labelings(labelings, len(images), name=str(labels))
        check_made_for(labels, images)
        progress.start("agreement", len(labelings) + asked.n_random, "labelings")
        scores = measure(
            images,
            labelings,
            others,
            pool,
            n_pairs=asked.n_pairs,
            n_steps=asked.n_steps,
            n_random=asked.n_random,
            seed=settings.seed,
            progress=progress.advance,
        )
    if as_json:
        print(json.dumps(scores.to_dict(), indent=2))
        return
    _print_table(
        [
            {
                "labeling": i,
                "agreement": f"{scores.mean[i]:.3f} ± {scores.sem[i]:.3f}",
                "by chance": float(scores.chance[i].mean()),
                "kappa": float(scores.kappa[i]),
                "predicted positive": float(scores.positive[i].mean()),
            }
            for i in range(len(labelings))
        ]
    )
    if scores.random is not None:
        random = scores.random
        print(
            f"{asked.n_random} random labelings: agreement {random.mean.mean():.3f} "
            f"(s.d. {random.mean.std():.3f}), kappa {random.kappa.mean():.3f} "
            f"(s.d. {random.kappa.std():.3f}, highest {random.kappa.max():.3f})"
        )
    wanting = ""
    if len(others) < asked.n_held_out:
        wanting = f", not {asked.n_held_out}: the image set leaves no more"
    print(f"held-out images: {len(others)}{wanting}")


def _where_stopped(n_scored: int, budget: int, n_confirming: int) -> str:
    """How far a search was, which may have nothing to score any more and be confirming."""
    if n_confirming:
        return f"in confirmation, {n_scored} labelings scored"
    return f"after {n_scored} of {budget} labelings"


def _print_tasks(result: dict[str, Any]) -> None:
    from taskdisc.discovery.classes import match_text

    rows = [
        {
            "task": "yes" if task["is_task"] else "no",
            "confirmed taskness": f"{task['confirmed']['mean']:.3f}"
            f" ± {task['confirmed']['sem']:.3f}",
            "p (adjusted)": f"{task['confirmed']['p_adjusted']:.3f}",
            "seen by the search": f"{task['seen']:.3f}",
        }
        for task in result["tasks"]
    ]
    target = next(iter(result["recovered"]), None)
    if target is not None:
        for row, task in zip(rows, result["tasks"], strict=True):
            row["class match"] = match_text(task["match"][target], len(task["positives"]))
    _print_table(rows)
    if result["trials"] < result["budget"]:
        print(
            f"{result['trials']} labelings were scored, not {result['budget']}: "
            f"proposer '{result['proposer']}' found no others."
        )
    print(
        f"images searched: {result['n_images']} of '{result['source']}'; `images.n_images`, or "
        "`images.n_classes` and `images.per_class`, take others."
    )
    n_tasks = sum(task["is_task"] for task in result["tasks"])
    print(
        f"{n_tasks} of {len(rows)} labelings are tasks: confirmed above "
        f"T_task = {result['threshold']:.3f}, the 95 % quantile of "
        f"{result['random']['n']} random labelings."
    )
    for target, row in result["recovered"].items():
        print(
            f"classes that the tasks recovered ({target}): "
            f"{len(row['classes'])} of {row['n_classes']}"
        )


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # A pipe has no width; what reads it wants whole words.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _finite(value: Any) -> Any:
    """The same with null for a NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _cell(value: Any) -> str:
    from rich.markup import escape

    from taskdisc.names import printable
    from taskdisc.report.plots import cell_text

    # What a pipe reads wants a plain minus.
    return escape(printable(cell_text(value)).replace("−", "-"))


def _print_method(kind: str, row: "Method") -> None:
    print(f"{row.name} ({kind.replace('_', ' ')}): {row.summary}")
    if row.needs:
        print(f"needs: {row.needs}")
    if row.paper is not None:
        print(f"from: {row.paper.authors} {row.paper.year}, {row.paper.title}, {row.paper.url}")
    if row.settings:
        rows = row.settings.items()
        _print_table(
            [
                {"setting": key, "default": _default(s["default"]), "must be": s["rule"]}
                for key, s in rows
            ]
        )


def _default(value: Any) -> str:
    """A default as a setting is written; none stands for what the method takes by itself."""
    return "–" if value is None or value == "" else str(value).lower()


def _say(text: str, quietly: bool) -> None:
    print(text, file=sys.stderr if quietly else sys.stdout, flush=True)


def _say_notes(*notes: str, as_json: bool) -> None:
    for note in filter(None, notes):
        _say(f"note: {note}", as_json)
