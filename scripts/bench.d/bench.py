"""Runs every scenario against every way to get a commit onto a disk that is there.

Called by scripts/bench, which builds the program and the git servers of the test bed.
"""

import argparse
import base64
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

import report
from repos import ENVIRONMENT, Repository, digits, git, noise, source, tree

HERE = Path(__file__).resolve().parent
TOKEN = "bench-0123456789abcdef"
ROUND_TRIP, RATE = 0.020, 200e6
OURS = "multideployer"
# Tools that do a part of the same, and for which nobody has written a way yet.
OTHERS = ["git-sync", "g10k", "r10k", "0.3.1"]


class Bed:
    """The git servers, and a slow link to the one over HTTPS."""

    def __init__(self, directory, target):
        self.root, self.out = directory / "git", directory / "servers"
        self.root.mkdir()
        self.out.mkdir()
        token = directory / "token"
        token.write_text(TOKEN + "\n")
        token.chmod(0o600)
        self.token, self.ca = token, self.out / "ca.pem"
        self.server = subprocess.Popen(
            [target / "release/examples/git_server", self.root, token, self.out],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        wait_for(self.out / "ready", self.server)
        self.near = (self.out / "https").read_text().strip()
        port = self.near.rsplit(":", 1)[1]
        self.link = subprocess.Popen(
            [sys.executable, HERE / "link.py", port, str(ROUND_TRIP), str(RATE)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.far = f"https://127.0.0.1:{int(self.link.stdout.readline())}"
        basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        self.git_config = directory / "gitconfig"
        self.git_config.write_text(
            f'[http]\n sslCAInfo = {self.ca}\n extraHeader = "Authorization: Basic {basic}"\n'
        )
        self.curl_config = directory / "curlrc"
        self.curl_config.write_text(
            f'silent\nshow-error\nfail\nuser = "x-access-token:{TOKEN}"\ncacert = "{self.ca}"\n'
        )

    def counted(self):
        """Requests since this was last asked, and bytes of bodies received and sent."""
        (self.out / "requests").unlink(missing_ok=True)
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        wait_for(self.out / "requests", self.server)
        requests, got, sent = map(int, (self.out / "requests").read_text().split())
        return requests, got, sent

    def stop(self):
        self.link.terminate()
        self.server.stdin.close()
        self.link.wait()
        self.server.wait()


def wait_for(path, process):
    for _ in range(6000):
        if path.exists():
            return
        if process.poll() is not None:
            raise SystemExit("the git server has ended")
        time.sleep(0.005)
    raise SystemExit(f"waited in vain for {path}")


def measure(bed, command, environment):
    """One run of a command: what it took, with all that it started."""
    bed.counted()
    # A process inherits the peak of the one that started it, so a small one has to do that.
    memory = bed.out / "memory"
    command = ["/usr/bin/time", "-f", "%M", "-o", memory, *command]
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command], env=environment, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            sys.stderr.write(output.read().decode(errors="replace"))
            raise SystemExit(f"exit code {process.returncode}: {command}")
    requests, _, received = bed.counted()
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": int(memory.read_text().split()[-1]) * 1024,
        "requests": requests,
        "received": received,
    }


class Way:
    """A way to get commits of repositories onto a disk, in a directory of its own."""

    name = ""
    steps = ("cold", "no-op", "warm", "rollback")

    def __init__(self, bed, directory, base):
        self.bed, self.directory, self.base, self.number = bed, directory, base, 0
        directory.mkdir(parents=True)

    def run(self, step, wanted):
        """Brings every (repository, commit) of `wanted` here."""
        self.number += 1
        return measure(self.bed, self.command(step, wanted), self.environment())

    def environment(self):
        return {**ENVIRONMENT, "GIT_CONFIG_GLOBAL": str(self.bed.git_config)}

    def shell(self, one, wanted):
        """The same piece of shell for each, four at a time, as the program itself does it."""
        lines = "\n".join(f"{self.base}/{r.name} {commit} {r.name}" for r, commit in wanted)
        script = self.directory / "step.sh"
        script.write_text(
            f"set -e\ncd {self.directory}\nn={self.number}\nurl=$1 commit=$2 name=$3\n{one}\n"
        )
        (self.directory / "step.list").write_text(lines + "\n")
        if len(wanted) == 1:
            return ["sh", "-e", script, *lines.split()]
        return ["xargs", "-a", self.directory / "step.list", "-L1", "-P4", "sh", "-e", script]


class Ours(Way):
    name = OURS

    def __init__(self, bed, directory, base):
        super().__init__(bed, directory, base)
        self.config = directory / "multideployer.yaml"
        agent = directory / "agent.yml"
        agent.write_text(f"---\n:root_dir: {directory}/root\n:log_dir: {directory}/log\n:max_revisions: 5\n")

    def command(self, step, wanted):
        host = self.base.removeprefix("https://")
        text = f'version: 2\nhosts:\n  "{host}":\n    auth: {{token_file: {self.bed.token}}}\n'
        text += f"    ca_file: {self.bed.ca}\napps:\n"
        for repository, commit in wanted:
            name = repository.name.removesuffix(".git").replace("/", "-")
            text += f'  - {{name: {name}, source: "{self.base}/{repository.name}", release: "{commit}"}}\n'
        self.config.write_text(text)
        return [
            BINARY, "deploy", "--config", self.config,
            "--cache-dir", self.directory / "cache", "--state-dir", self.directory / "state",
            "--log", self.directory / "log/multideployer.log",
            "--codedeploy-local-path", "builtin",
            "--agent-configuration-file", self.directory / "agent.yml",
        ]  # fmt: skip


class GitWorktree(Way):
    name = "git fetch + worktree"
    lay = 'git -C "m/$name" worktree add -q --detach "$PWD/t/$name/$n" "$commit"'

    def command(self, step, wanted):
        make = '[ -d "m/$name" ] || git init -q --bare "m/$name"\n'
        there = 'git -C "m/$name" cat-file -e "$commit^{commit}" 2>/dev/null'
        fetch = 'git -C "m/$name" fetch -q --no-tags --depth 1 "$url" "$commit"\n'
        fetch += 'git -C "m/$name" update-ref "refs/got/$commit" "$commit"'
        if step == "no-op":
            return self.shell(there, wanted)
        return self.shell(f"{make}{there} || {{ {fetch}; }}\nmkdir -p t/$name\n{self.lay}", wanted)


class GitArchive(GitWorktree):
    name = "git fetch + archive | tar"
    lay = 'mkdir "t/$name/$n"; git -C "m/$name" archive "$commit" | tar x -C "t/$name/$n"'


class Tarball(Way):
    name = "tarball by curl"
    steps = ("cold", "warm")

    def command(self, step, wanted):
        one = 'mkdir -p "t/$name/$n"\n'
        one += f'curl -K {self.bed.curl_config} "$url/$commit.tar.gz" | tar xz -C "t/$name/$n"'
        return self.shell(one, wanted)


class Download(Way):
    """The floor of a fetch: the same request, and its answer thrown away."""

    name = "floor: same request by curl"
    steps = ("cold",)

    def command(self, step, wanted):
        for repository, commit in wanted:
            line = lambda text: f"{len(text) + 4:04x}{text}"  # noqa: E731
            body = line("command=fetch\n") + line("object-format=sha1") + "0001"
            body += line("thin-pack\n") + line("ofs-delta\n") + line("no-progress\n")
            body += line("deepen 1\n") + line(f"want {commit}\n") + line("done\n") + "0000"
            (self.directory / commit).write_text(body)
        one = f'curl -K {self.bed.curl_config} -H "Git-Protocol: version=2" -o /dev/null '
        one += '-H "Content-Type: application/x-git-upload-pack-request" '
        one += '--data-binary "@$commit" "$url/git-upload-pack"'
        return self.shell(one, wanted)


class Unpack(Way):
    """The floor of a checkout: the same tree from memory."""

    name = "floor: tar x of the same tree"
    steps = ("rollback",)

    def command(self, step, wanted):
        for repository, commit in wanted:
            tar = self.directory / f"{commit}.tar"
            if not tar.exists():
                git(repository.path, "archive", "-o", str(tar), commit)
        return self.shell('mkdir -p "t/$name/$n"; tar xf "$commit.tar" -C "t/$name/$n"', wanted)


WAYS = [Ours, GitWorktree, GitArchive, Tarball, Download, Unpack]


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


def cycle(bed, results, work, scenario, repositories, base, runs, ways=WAYS, steps=None):
    """Cold, nothing to do, an update and a way back, each step by all ways in turn."""
    offer_tarballs(repositories, 2)
    for run in range(runs):
        ways_here = [way(bed, work / way.__name__, base) for way in ways]
        for step in steps or ("cold", "no-op", "warm", "rollback"):
            index = 1 if step == "warm" else 0
            wanted = [(repository, repository.commits[index]) for repository in repositories]
            turn = [way for way in ways_here if step in way.steps]
            for way in turn[run % len(turn) :] + turn[: run % len(turn)]:
                results.add(scenario, step, way.name, way.run(step, wanted))
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
        files = [path for path in mirror.rglob("*") if path.is_file()]
        sizes[way.name] = {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}
        runs = results.rows[f"{count} deployments"]["each"][way.name]
        mean = lambda part: statistics.mean(run["cpu"] for run in part)  # noqa: E731
        sizes[way.name]["late / early"] = mean(runs[-5:]) / mean(runs[1:6])
    shutil.rmtree(work)
    progress(f"{count} deployments: done")
    return sizes


def progress(text):
    print(text, file=sys.stderr, flush=True)


def scenarios(bed, arguments, work):
    results, quick, runs = Results(), arguments.quick, arguments.runs or (3 if arguments.quick else 7)
    wanted = lambda name: not arguments.only or any(word in name for word in arguments.only)  # noqa: E731
    make = lambda name: Repository(bed.root, name)  # noqa: E731
    extra = {}
    small_files = tree(40, 3000, 8, 1)
    if wanted("small"):
        small = make("acme/small.git").fill(small_files, 2, source, 3).repack()
        cycle(bed, results, work, "small, slow link", [small], bed.far, runs)
    if wanted("15,604"):
        many = make("acme/many.git").fill(tree(15_604, 1800, 12, 4), 2, source, 20)
        if not quick:
            many.repack()
        cycle(bed, results, work, "15,604 files", [many], bed.near, min(runs, 5))
    if wanted("10,000 files") and not quick:
        large = make("acme/large.git").fill(tree(10_000, 10_000, 50, 2), 2, noise, 20, 0)
        cycle(bed, results, work, "10,000 files, 100 MB", [large], bed.near, min(runs, 3))
        shutil.rmtree(large.path)
    if wanted("monorepo") and not quick:
        mono = make("acme/mono.git").fill(tree(50_000, 12_000, 20, 4), 2, digits, 20, 1).refs(20_000)
        cycle(bed, results, work, "monorepo: 50,000 files, 20,000 refs", [mono], bed.near, min(runs, 3))
        shutil.rmtree(mono.path)
    if wanted("12 apps"):
        twelve = [
            make(f"acme/app{n}.git").fill(tree(40 + n, 3000, 8, 1), 2, source, 3).repack()
            for n in range(12)
        ]
        cycle(bed, results, work, "12 apps", twelve, bed.near, runs, WAYS[:4])
    if wanted("refs"):
        for count in (10, 10_000) if quick else (10, 100_000):
            one = make(f"acme/refs{count}.git").fill(small_files, 2, source, 3).repack().refs(count)
            name = f"{count:,} refs"
            cycle(bed, results, work, name, [one], bed.near, runs, WAYS[:3], ("cold", "warm"))
    if wanted("commits"):
        for count in (100, 1000) if quick else (100, 1000, 10_000):
            one = make(f"acme/history{count}.git").fill(small_files, count, source, 3, 1).repack()
            one.commits = one.commits[-2:]
            name = f"{count:,} commits"
            cycle(bed, results, work, name, [one], bed.near, runs, WAYS[:3], ("cold", "warm"))
    if wanted("deployments"):
        count = 20 if quick else 50
        one = make("acme/often.git").fill(small_files, count, source, 3).repack()
        extra = many_deployments(bed, results, work, one, bed.near, count)
    return results, extra


def main():
    global BINARY
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--target", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--only", action="append", metavar="WORD")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    BINARY = arguments.target / "release/multideployer"
    place = os.environ.get("BENCH_DIR") or ("/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    directory = Path(tempfile.mkdtemp(prefix="multideployer-bench.", dir=place))
    bed = Bed(directory, arguments.target)
    begin = time.monotonic()
    try:
        results, extra = scenarios(bed, arguments, directory / "work")
    finally:
        bed.stop()
        shutil.rmtree(directory, ignore_errors=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    version = lambda *command: subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]  # noqa: E731
    document = {
        "commit": commit.stdout.strip(),
        "quick": arguments.quick,
        "seconds": round(time.monotonic() - begin, 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()} {platform.release()}",
        "link": f"{ROUND_TRIP * 1000:.0f} ms, {RATE / 1e6:.0f} Mbit/s (a delaying proxy)",
        "git": version("git", "--version"),
        "curl": version("curl", "--version"),
        "not measured": OTHERS,
        "rows": report.medians(results.rows),
        "mirrors": extra,
    }
    text = json.dumps(document, indent=1) + "\n"
    path = arguments.json or arguments.target / f"bench/{document['commit'][:12]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(report.table(document))
    print(f"written to {path}")
    if arguments.picture:
        arguments.picture.write_text(report.picture(document))


if __name__ == "__main__":
    main()
