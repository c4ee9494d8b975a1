"""Runs every scenario against every way to get a commit onto a disk that is there.

Called by scripts/bench, which builds the program and the git servers of the test bed.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
import report
from bed import RATE, ROUND_TRIP, Bed
from repos import Repository, digits, git, noise, source, tree
from ways import OURS, WAYS, GitArchive, GitWorktree, Nothing, Ours


def offer_tarballs(repositories, commits):
    for repository in repositories:
        for commit in repository.commits[:commits]:
            path = repository.path / f"{commit}.tar.gz"
            git(repository.path, "-c", "tar.tar.gz.command=gzip -cn1", "archive", "-o", str(path), commit)


def drop_tarballs(repositories):
    for repository in repositories:
        for path in repository.path.glob("*.tar.gz"):
            path.unlink()


class Results:
    """Measurements by scenario, step and way."""

    def __init__(self):
        self.rows = {}

    def add(self, scenario, step, way, figures):
        self.rows.setdefault(scenario, {}).setdefault(step, {}).setdefault(way, []).append(figures)


def cycle(bed, results, work, scenario, repositories, base, runs, ways, steps=None):
    """Cold, nothing to do, an update and a way back, each step by all ways in turn."""
    offer_tarballs(repositories, 2)
    ways = [way for way in ways if way.can(base)]
    for run in range(runs):
        ways_here = [way(bed, work / way.__name__, base) for way in ways]
        for step in steps or ("cold", "no-op", "warm", "rollback"):
            index = 1 if step == "warm" else 0
            wanted = [(repository, repository.commits[index]) for repository in repositories]
            turn = [way for way in ways_here if step in way.steps]
            for way in turn[run % len(turn) :] + turn[: run % len(turn)]:
                results.add(scenario, step, way.name, way.run(step, wanted))
            for way in ways_here:
                way.forget()
        shutil.rmtree(work)
        progress(f"{scenario}: {run + 1} of {runs}")
    drop_tarballs(repositories)


def many_deployments(bed, results, work, repository, base, count):
    """One repository, a commit after the other."""
    ways = [way(bed, work / way.__name__, base) for way in (Ours, GitWorktree, GitArchive)]
    for number, commit in enumerate(repository.commits[:count]):
        for way in ways:
            figures = way.run("warm", [(repository, commit)])
            results.add(f"{count} deployments", "each", way.name, figures)
    sizes = {}
    for way in ways:
        mirror = way.directory / ("cache/mirrors" if way.name == OURS else "m")
        parts = [(path.is_file(), path.stat().st_blocks * 512) for path in mirror.rglob("*")]
        sizes[way.name] = {
            "files": sum(is_file for is_file, _ in parts),
            "bytes": sum(on_disk for _, on_disk in parts),
        }
        runs = results.rows[f"{count} deployments"]["each"][way.name]
        mean = lambda part: statistics.mean(run["cpu"] for run in part)  # noqa: E731
        sizes[way.name]["late / early"] = mean(runs[-5:]) / mean(runs[1:6])
    shutil.rmtree(work)
    progress(f"{count} deployments: done")
    return sizes


def progress(text):
    print(text, file=sys.stderr, flush=True)


def scenarios(bed, arguments, work, found, save):
    results, quick, runs = Results(), arguments.quick, arguments.runs or (3 if arguments.quick else 7)
    wanted = lambda name: not arguments.only or any(word in name for word in arguments.only)  # noqa: E731
    make = lambda name: Repository(bed.root, name)  # noqa: E731
    floors = [way for way in WAYS if way.name.startswith("floor")]
    tools = [way for way in WAYS if way not in floors] + found
    growing = [way for way in tools if way in (Ours, GitWorktree, GitArchive)]
    extra = {}

    def run(*more):
        cycle(bed, results, work, *more)
        # What comes later may fail.
        save(results, extra)

    small_files = tree(40, 3000, 8, 1)
    if wanted("small"):
        small = make("acme/small.git").fill(small_files, 2, source, 3).repack()
        run("small, slow link", [small], bed.far, runs, tools + floors)
        run("small, slow link, SSH", [small], bed.far_ssh, min(runs, 5), tools)
    if wanted("12 apps"):
        twelve = [
            make(f"acme/app{n}.git").fill(tree(40 + n, 3000, 8, 1), 2, source, 3).repack()
            for n in range(12)
        ]
        run("12 apps", twelve, bed.near, runs, [*tools, Nothing])
        run("12 apps, slow link", twelve, bed.far, min(runs, 5), tools, ("cold", "warm"))
    if wanted("15,604"):
        many = make("acme/many.git").fill(tree(15_604, 1800, 12, 4), 2, source, 20)
        if not quick:
            many.repack()
        run("15,604 files", [many], bed.near, min(runs, 5), tools + floors)
    if wanted("10,000 files") and not quick:
        large = make("acme/large.git").fill(tree(10_000, 10_000, 50, 2), 2, noise, 20, 0)
        run("10,000 files, 100 MB", [large], bed.near, min(runs, 3), tools + floors)
        shutil.rmtree(large.path)
    if wanted("70,000 files") and not quick:
        wide = make("acme/wide.git").fill(tree(70_000, 1400, 12, 4), 2, source, 20)
        run("70,000 files", [wide], bed.near, min(runs, 3), growing + floors)
        shutil.rmtree(wide.path)
    if wanted("monorepo") and not quick:
        mono = make("acme/mono.git").fill(tree(50_000, 12_000, 20, 4), 2, digits, 20, 1).refs(20_000)
        # Others keep several copies, or take minutes.
        some = [way for way in tools if way not in found]
        run("monorepo: 50,000 files, 20,000 refs", [mono], bed.near, min(runs, 3), some + floors)
        shutil.rmtree(mono.path)
    if wanted("refs"):
        for count in (10, 10_000) if quick else (10, 100_000):
            one = make(f"acme/refs{count}.git").fill(small_files, 2, source, 3).repack().refs(count)
            run(f"{count:,} refs", [one], bed.near, runs, growing, ("cold", "warm"))
    if wanted("commits"):
        for count in (100, 1000) if quick else (100, 1000, 10_000):
            one = make(f"acme/history{count}.git").fill(small_files, count, source, 3, 1).repack()
            one.commits = one.commits[-2:]
            run(f"{count:,} commits", [one], bed.near, runs, growing, ("cold", "warm"))
    if wanted("deployments"):
        count = 20 if quick else 50
        one = make("acme/often.git").fill(small_files, count, source, 3).repack()
        extra = many_deployments(bed, results, work, one, bed.near, count)
        save(results, extra)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--target", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--only", action="append", metavar="WORD")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH")
    arguments = parser.parse_args()
    Ours.binary = arguments.target / "release/multideployer"
    found, missing = peers.there(arguments.peer)
    place = os.environ.get("BENCH_DIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    directory = Path(tempfile.mkdtemp(prefix="multideployer-bench.", dir=place))
    output = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.strip()  # noqa: E731
    first = lambda text: text.split("\n")[0]  # noqa: E731
    commit = output("git", "rev-parse", "HEAD")
    path = arguments.json or arguments.target / f"bench/{commit[:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if arguments.add and path.exists() else {}
    document = {
        "commit": commit,
        "quick": arguments.quick,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "link": f"{ROUND_TRIP * 1000:.0f} ms, {RATE / 1e6:.0f} Mbit/s (a delaying proxy)",
        "git": first(output("git", "--version")),
        "curl": first(output("curl", "--version")),
        "not there": missing,
    }
    begin = time.monotonic()

    def save(results, extra):
        document["seconds"] = round(time.monotonic() - begin + before.get("seconds", 0), 1)
        document["rows"] = {**before.get("rows", {}), **report.medians(results.rows)}
        document["mirrors"] = extra or before.get("mirrors", {})
        path.write_text(json.dumps(document, indent=1) + "\n")

    bed = Bed(directory, arguments.target)
    try:
        scenarios(bed, arguments, directory / "work", found, save)
    finally:
        bed.stop()
        shutil.rmtree(directory, ignore_errors=True)
    print(report.table(document))
    print(f"written to {path}")
    if arguments.picture:
        arguments.picture.write_text(report.picture(document))


if __name__ == "__main__":
    main()
