"""Tools that others use for a part of the same. Each is measured if it is there: in PATH, or
where `--peer NAME=PATH` says."""

import shutil
import sys
from pathlib import Path

from repos import git
from ways import Ours, Way

HERE = Path(__file__).resolve().parent


class Peer(Way):
    tool = None


class GitSync(Peer):
    """One process per repository, four at a time."""

    name = "git-sync"

    def command(self, step, wanted):
        one = f'mkdir -p "s/$name"\n{self.tool} --one-time --repo "$url" --ref "$commit" '
        one += '--root "$PWD/s/$name" --link current --depth 1 --submodules off '
        one += "--max-failures 0 --sync-timeout 600s"
        return self.shell(one, wanted)

    def environment(self):
        # It sets up a configuration of its own.
        more = {"HOME": str(self.directory), "GIT_CONFIG_COUNT": "2"}
        values = {"http.sslCAInfo": self.bed.ca, "http.extraHeader": self.bed.authorization}
        for number, (key, value) in enumerate(values.items()):
            more[f"GIT_CONFIG_KEY_{number}"] = key
            more[f"GIT_CONFIG_VALUE_{number}"] = str(value)
        return {**super().environment(), **more}


class Puppetfile(Peer):
    """Tools that bring modules to where a file says; all in one process."""

    def write(self, wanted):
        lines = ""
        for repository, commit in wanted:
            name = repository.name.removesuffix(".git").split("/")[-1]
            url = f"{self.base}/{repository.name}"
            lines += f"mod '{name}',\n  :git => '{url}',\n  :commit => '{commit}'\n"
        file = self.directory / "Puppetfile"
        file.write_text(lines)
        return file

    def environment(self):
        return {**super().environment(), "HOME": str(self.directory)}


class G10k(Puppetfile):
    name = "g10k"

    def command(self, step, wanted):
        file = self.write(wanted)
        return [
            self.tool, "-puppetfile", "-puppetfilelocation", file, "-quiet",
            "-moduledir", self.directory / "modules", "-cachedir", self.directory / "cache",
        ]  # fmt: skip


class R10k(Puppetfile):
    name = "r10k"

    def command(self, step, wanted):
        file = self.write(wanted)
        config = self.directory / "r10k.yaml"
        config.write_text(f"cachedir: {self.directory}/cache\n")
        return [
            self.tool, "puppetfile", "install", "--config", config, "--puppetfile", file,
            "--moduledir", self.directory / "modules", "--force",
        ]  # fmt: skip


class Predecessor(Peer):
    """The Python tool that this program replaces, from a directory with its package and with
    what that needs; told to ask the test bed instead of api.github.com."""

    name = "0.3.1"

    def command(self, step, wanted):
        text = "version: 1.0\napps:\n"
        for repository, commit in wanted:
            offer(repository, commit)
            name = repository.name.removesuffix(".git")
            text += f"- {{name: {name.replace('/', '-')}, source: 'github://{name}', release: '{commit}'}}\n"
        config = self.directory / "multideployer.yaml"
        config.write_text(text)
        agent = self.directory / "agent.yml"
        agent.write_text(f"---\n:root_dir: {self.directory}/root\n:log_dir: {self.directory}/log\n:max_revisions: 5\n")
        local = self.directory / "codedeploy-local"
        local.write_text(
            f'#!/bin/sh\nexec {Ours.binary} codedeploy-local "$@" --agent-configuration-file {agent}\n'
        )
        local.chmod(0o755)
        return [
            sys.executable, HERE / "predecessor.py", self.tool, self.base, self.directory / "state",
            "--config", config, "--log", self.directory / "log/multideployer.log", "-c", local,
        ]  # fmt: skip

    def environment(self):
        token = self.bed.token.read_text().strip()
        more = {"SSL_CERT_FILE": str(self.bed.ca), "MULTIDEPLOYER_GITHUB_TOKEN": token}
        return {**super().environment(), **more}


def offer(repository, commit):
    """A tarball as GitHub has them: all in one directory."""
    path = repository.path / f"{commit}-top.tar.gz"
    if not path.exists():
        compress = "tar.tar.gz.command=gzip -cn1"
        git(repository.path, "-c", compress, "archive", "--prefix=top/", "-o", str(path), commit)


PEERS = [GitSync, G10k, R10k, Predecessor]


def there(given):
    """Those that are there; `given` has NAME=PATH. Also the names of those that are not."""
    paths = dict(one.split("=", 1) for one in given)
    unknown = set(paths) - {peer.name for peer in PEERS}
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(unknown)}")
    for peer in PEERS:
        path = paths.get(peer.name) or (None if peer is Predecessor else shutil.which(peer.name))
        if peer.name in paths and not Path(path.split(":")[0]).exists():
            raise SystemExit(f"{peer.name} is not at {path}")
        peer.tool = path
    found = [peer for peer in PEERS if peer.tool]
    return found, [peer.name for peer in PEERS if not peer.tool]
