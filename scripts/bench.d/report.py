"""What was measured as a table, as a comparison of two runs, and as a picture."""

import json
import statistics
import sys
from pathlib import Path

OURS = "multideployer"
MONO = "monorepo: 50,000 files, 20,000 refs"
# Scenario, step, and the largest ratio of wall times to another way that is aimed at.
TARGETS = [
    ("small, slow link", "cold", "git fetch + worktree", 0.65),
    ("small, slow link", "cold", "tarball by curl", 1.25),
    ("small, slow link", "warm", "git fetch + worktree", 0.6),
    ("small, slow link", "rollback", "best", 0.5),
    ("15,604 files", "cold", "git fetch + worktree", 0.65),
    ("15,604 files", "cold", "tarball by curl", 1.1),
    ("15,604 files", "warm", "git fetch + archive | tar", 0.6),
    ("15,604 files", "rollback", "best", 0.5),
    ("15,604 files", "rollback", "floor: tar x of the same tree", 0.75),
    (MONO, "cold", "git fetch + worktree", 0.75),
    (MONO, "warm", "git fetch + archive | tar", 0.8),
    ("12 apps", "cold", "best", 0.75),
    ("12 apps", "warm", "best", 0.6),
]
# Scenario, and the most that is aimed at: milliseconds over an empty process, where nothing is
# to be done.
IDLE = [("small, slow link", 6), ("12 apps", 10)]
# The longest bar of the picture, in units of ours.
MOST = 6
# Scenarios that differ in one thing, of which the time is not to depend.
FLAT = [
    (("10 refs", "100,000 refs"), 1.15),
    (("10 refs", "10,000 refs"), 1.15),
    (("100 commits", "10,000 commits"), 1.1),
    (("100 commits", "1,000 commits"), 1.1),
]
# Scenario, step, and the most MB of memory.
MEMORY = [("small, slow link", "no-op", 10), ("small, slow link", "cold", 14), (MONO, "cold", 64)]


def medians(rows):
    """The median of each figure, and how often it was measured."""
    out = {}
    for scenario, steps in rows.items():
        for step, ways in steps.items():
            for way, runs in ways.items():
                figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
                figures["runs"] = len(runs)
                out.setdefault(scenario, {}).setdefault(step, {})[way] = figures
    return out


def best(ways):
    """The fastest other tool. A tarball is none: somebody has to have made it, nothing is kept of
    it, and what is there already is loaded again."""
    none = (OURS, "floor", "tarball")
    others = {way: f for way, f in ways.items() if not way.startswith(none)}
    return min(others, key=lambda way: others[way]["wall"]) if others else None


def table(document):
    lines = [f"{document['machine']}; link: {document['link']}; {document['git']}"]
    lines.append("medians; ratio: wall to the best other tool")
    for scenario, steps in document["rows"].items():
        for step, ways in steps.items():
            lines.append("")
            head = f"{scenario}: {step}"
            lines.append(f"{head:<48}{'wall':>9}{'CPU':>9}{'asked':>7}{'received':>11}{'memory':>9}{'ratio':>7}")
            other = best(ways)
            for way, figures in ways.items():
                ratio = f"{figures['wall'] / ways[other]['wall']:7.2f}" if other else ""
                lines.append(
                    f"  {way:<46}{figures['wall']:8.3f}s{figures['cpu']:8.3f}s{figures['requests']:7.0f}"
                    f"{figures['received'] / 1e6:8.2f} MB{figures['memory'] / 1e6:6.0f} MB{ratio}"
                )
    for way, size in document["mirrors"].items():
        lines.append(
            f"  {way:<46} mirror {size['bytes'] / 1e6:.2f} MB in {size['files']} files; "
            f"CPU of the last five to the first five: {size['late / early']:.2f}"
        )
    lines += ["", f"{'target':<68}{'aim':>8}{'is':>8}{'CPU':>6}"]
    for name, aim, found, cpu in targets(document):
        cpu = "" if cpu is None else f"{cpu:.2f}"
        met = "" if found <= aim else "  missed"
        lines.append(f"  {name:<66}{aim:8g}{found:8.2f}{cpu:>6}{met}")
    lines.append("wall needs a quiet machine, CPU is steadier, requests and bytes are exact")
    lines.append("the program also checks, records and syncs; the other ways do not")
    lines.append("not there: " + (", ".join(document["not there"]) or "none"))
    return "\n".join(lines)


def targets(document):
    """What is aimed at: name, aim, what was measured, and the same ratio of CPU times."""
    rows = document["rows"]
    at = lambda scenario, step: rows.get(scenario, {}).get(step, {})  # noqa: E731
    for scenario, step, other, aim in TARGETS:
        ways = at(scenario, step)
        name = best(ways) if other == "best" else other
        if OURS in ways and name in ways:
            ratio = lambda key: ways[OURS][key] / ways[name][key]  # noqa: E731
            yield f"{scenario}: {step}, wall to {name}", aim, ratio("wall"), ratio("cpu")
    for scenario, aim in IDLE:
        ways = at(scenario, "no-op")
        if "floor: an empty process" in ways:
            more = ways[OURS]["wall"] - ways["floor: an empty process"]["wall"]
            yield f"{scenario}: no-op, ms over an empty process", aim, more * 1000, None
    for scenario, step in [("small, slow link", "no-op"), ("small, slow link", "rollback")]:
        if OURS in at(scenario, step):
            yield f"{scenario}: {step}, requests", 0, at(scenario, step)[OURS]["requests"], None
    if OURS in at("small, slow link", "cold"):
        yield "small, slow link: cold, requests", 1, at("small, slow link", "cold")[OURS]["requests"], None
    for (small, large), aim in FLAT:
        for step in ("cold", "warm"):
            less, more = at(small, step).get(OURS), at(large, step).get(OURS)
            if less and more:
                name = f"{large} to {small}: {step}"
                yield f"{name}, wall", aim, more["wall"] / less["wall"], more["cpu"] / less["cpu"]
                # Other commits change other files: git gets the same ones.
                theirs = [at(one, step)["git fetch + worktree"]["received"] for one in (small, large)]
                received = more["received"] / less["received"] * theirs[0] / theirs[1]
                yield f"{name}, bytes received, to git's", 1.01, received, None
    mirrors = dict(document["mirrors"])
    if OURS in mirrors:
        ours = mirrors.pop(OURS)
        least = min(other["bytes"] for other in mirrors.values())
        yield "mirror after many deployments, bytes to the best", 0.65, ours["bytes"] / least, None
        yield "mirror after many deployments, files", 20, ours["files"], None
        yield "many deployments: CPU of the last five to the first", 1.1, ours["late / early"], None
    for scenario, step, aim in MEMORY:
        if OURS in at(scenario, step):
            yield f"{scenario}: {step}, MB of memory", aim, at(scenario, step)[OURS]["memory"] / 1e6, None


def compare(old, new):
    lines = [f"{'wall and CPU of the second to the first':<64}{'wall':>7}{'CPU':>7}{'bytes':>7}"]
    for scenario, steps in new["rows"].items():
        for step, ways in steps.items():
            before = old["rows"].get(scenario, {}).get(step, {}).get(OURS)
            after = ways.get(OURS)
            if not before or not after:
                continue
            # The other ways were measured in the same run: they say how fast the machine was.
            other = best(ways)
            then = old["rows"][scenario][step].get(other) if other else None
            speed = ways[other]["wall"] / then["wall"] if then else 1
            ratio = lambda key: after[key] / before[key] if before[key] else 1  # noqa: E731
            lines.append(
                f"  {f'{scenario}: {step}':<62}{ratio('wall') / speed:7.2f}{ratio('cpu') / speed:7.2f}{ratio('received'):7.2f}"
            )
    lines.append("(as if the machine had been as fast both times, by the best other way)")
    return "\n".join(lines)


def picture(document):
    """Bars: the processor time of each way in units of ours; it depends least on what else runs."""
    chosen = [
        ("small, slow link", "cold", "small repository, first time, 20 ms link"),
        ("small, slow link", "warm", "small repository, next commit, 20 ms link"),
        ("small, slow link, SSH", "cold", "the same over SSH, first time"),
        ("15,604 files", "cold", "15,604 files, first time"),
        ("15,604 files", "warm", "15,604 files, 20 changed"),
        (MONO, "cold", "50,000 files, 20,000 refs, first time"),
        ("12 apps", "cold", "12 apps, first time"),
        ("15,604 files", "rollback", "15,604 files, rollback"),
    ]
    colors = {
        OURS: "#0f766e",
        "git fetch + worktree": "#94a3b8",
        "git fetch + archive | tar": "#cbd5e1",
        "tarball by curl": "#f59e0b",
        "git-sync": "#60a5fa",
        "g10k": "#a78bfa",
        "r10k": "#f472b6",
        "0.3.1": "#a3a3a3",
    }
    body, y, left, width = [], 50, 250, 420
    groups = [
        (title, document["rows"][scenario][step])
        for scenario, step, title in chosen
        if OURS in document["rows"].get(scenario, {}).get(step, {})
    ]
    most = max(
        (f["cpu"] / ways[OURS]["cpu"] for _, ways in groups for way, f in ways.items() if way in colors),
        default=1,
    )
    # What takes many times as long would make all others small.
    most = min(most, MOST)
    measured = [way for way in colors if any(way in ways for _, ways in groups)]
    x, line = 20, 8
    for way in measured:
        if x + 30 + 6 * len(way) > 740:
            x, line = 20, line + 16
        body.append(f'<rect x="{x}" y="{line}" width="10" height="10" fill="{colors[way]}"/>')
        body.append(f'<text x="{x + 14}" y="{line + 9}">{way}</text>')
        x += 40 + 6 * len(way)
    for title, ways in groups:
        rows = [(way, ways[way]["cpu"]) for way in colors if way in ways]
        body.append(f'<text x="{left - 10}" y="{y + 7 * len(rows) + 3}" text-anchor="end">{title}</text>')
        for way, cpu in rows:
            long = min(cpu / ways[OURS]["cpu"], most) / most * width
            body.append(f'<rect x="{left}" y="{y}" width="{long:.1f}" height="11" fill="{colors[way]}"/>')
            body.append(f'<text x="{left + long + 5:.1f}" y="{y + 9}" class="n">{cpu / ways[OURS]["cpu"]:.2f}</text>')
            y += 14
        y += 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {y}" width="760" height="{y}">'
        "<style>text{font:11px sans-serif;fill:#475569}.n{font-size:9px}</style>"
        + "".join(body)
        + "</svg>\n"
    )


def main():
    command, *paths = sys.argv[1:]
    if command == "compare" and len(paths) == 2:
        old, new = (json.loads(Path(path).read_text()) for path in paths)
        print(compare(old, new))
    elif command == "picture" and len(paths) == 2:
        Path(paths[1]).write_text(picture(json.loads(Path(paths[0]).read_text())))
    else:
        raise SystemExit("scripts/bench compare OLD.json NEW.json | picture RESULTS.json OUT.svg")


if __name__ == "__main__":
    main()
