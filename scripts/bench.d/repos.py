"""Repositories like those that are deployed, made by `git fast-import`: always the same."""

import os
import random
import subprocess

APPSPEC = b"version: 0.0\nos: linux\n"
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
WORDS = [
    "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz_", k=3 + seed % 9))
    for seed in range(2000)
]


def git(repository, *arguments, **more):
    command = ["git", "--git-dir", str(repository), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE, **more)
    return done.stdout.decode().strip()


def source(chance, size):
    """Text that compresses as program sources do."""
    lines, length = [], 0
    while length < size:
        line = "    " * chance.randrange(4) + " ".join(chance.choices(WORDS, k=chance.randrange(1, 9)))
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines).encode()[:size]


def noise(chance, size):
    """What does not compress: archives, images, libraries."""
    return chance.randbytes(size)


def digits(chance, size):
    """What compresses to about half."""
    return chance.randbytes(size // 2).hex().encode()


class Repository:
    """A bare repository below the server's root, and its commits, oldest first."""

    def __init__(self, root, name):
        self.name, self.path, self.commits = name, root / name, []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["git", "init", "-q", "--bare", "--initial-branch=main", str(self.path)],
            env=ENVIRONMENT,
            check=True,
        )
        for key, value in (("uploadpack.allowAnySHA1InWant", "true"), ("gc.auto", "0")):
            git(self.path, "config", key, value)

    def fill(self, files, commits, make, changed, compression=-1):
        """`files` is a list of (path, size). The first commit has all of them, each later one
        changes `changed` of them; `make(chance, size)` gives the content."""
        command = ["git", "--git-dir", str(self.path), "-c", f"core.compression={compression}"]
        marks = self.path / "marks"
        command += ["fast-import", "--quiet", f"--export-marks={marks}"]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE)
        out = process.stdin
        for number in range(commits):
            text = f"commit {number}".encode()
            out.write(b"commit refs/heads/main\nmark :%d\n" % (number + 1))
            out.write(b"committer Ada <ada@example.com> %d +0000\n" % (1_700_000_000 + number))
            out.write(b"data %d\n%s\n" % (len(text), text))
            chance = random.Random(number)
            if number == 0:
                out.write(b"M 100644 inline appspec.yml\ndata %d\n%s\n" % (len(APPSPEC), APPSPEC))
                chosen = files
            else:
                chosen = chance.sample(files, min(changed, len(files)))
            for path, size in chosen:
                content = make(chance, size)
                out.write(b"M 100644 inline %s\ndata %d\n" % (path.encode(), len(content)))
                out.write(content)
                out.write(b"\n")
        out.close()
        if process.wait() != 0:
            raise SystemExit("git fast-import failed")
        by_mark = dict(line.split() for line in marks.read_text().splitlines())
        marks.unlink()
        self.commits = [by_mark[f":{number + 1}"] for number in range(commits)]
        return self

    def repack(self):
        git(self.path, "repack", "-adfq", "--window=10", "--threads=2", stderr=subprocess.DEVNULL)
        return self

    def refs(self, count):
        """Many branches, as large companies have them."""
        tip = self.commits[-1]
        lines = [f"{tip} refs/heads/b{number:06}" for number in range(count)]
        lines.append(f"{tip} refs/heads/main")
        text = "# pack-refs with: peeled fully-peeled sorted \n" + "\n".join(sorted(lines, key=lambda l: l[41:]))
        (self.path / "packed-refs").write_text(text + "\n")
        (self.path / "refs/heads/main").unlink(missing_ok=True)
        return self


def tree(count, each, per_directory, depth):
    """Paths and sizes of `count` files."""
    chance = random.Random(count)
    files = []
    for number in range(count):
        directory, parts = number // per_directory, []
        for _ in range(depth):
            parts.append(f"{WORDS[directory % 37]}{directory % 7}")
            directory //= 7
        path = "/".join([*parts, f"d{number // per_directory}", f"f{number}.txt"])
        files.append((path, max(1, int(each * chance.uniform(0.2, 1.8)))))
    return files
