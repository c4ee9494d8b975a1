"""Ways to get commits onto a disk: the program, git, a tarball, and the floors."""

import shutil

from bed import measure
from repos import ENVIRONMENT, git

OURS = "multideployer"


class Way:
    """A way to get commits of repositories onto a disk, in a directory of its own."""

    name = ""
    steps = ("cold", "no-op", "warm", "rollback")

    def __init__(self, bed, directory, base):
        self.bed, self.directory, self.base, self.number = bed, directory, base, 0
        directory.mkdir(parents=True)
        # Some write to it.
        self.git_config = directory / "gitconfig"
        self.git_config.write_text(bed.git_config.read_text())

    @classmethod
    def can(cls, base):
        """Whether it goes over what `base` begins with."""
        return base.startswith("https:")

    def run(self, step, wanted):
        """Brings every (repository, commit) of `wanted` here."""
        self.number += 1
        return measure(self.bed, self.command(step, wanted), self.environment())

    def environment(self):
        ssh = f"ssh -F none -i {self.bed.key} -o UserKnownHostsFile={self.bed.known_hosts}"
        return {
            **ENVIRONMENT,
            "GIT_CONFIG_GLOBAL": str(self.git_config),
            "GIT_SSH_COMMAND": f"{ssh} -o GlobalKnownHostsFile=none -o IdentitiesOnly=yes",
        }

    def forget(self):
        """Removes the trees of steps before the last one: large ones do not all have room in
        memory. On a disk they stay: ext4 makes files slowly after many were removed."""
        if self.directory.is_relative_to("/dev/shm"):
            for tree in self.directory.glob("t/*/*/*"):
                if tree.name.isdigit() and int(tree.name) < self.number:
                    shutil.rmtree(tree)

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
    binary = None

    @classmethod
    def can(cls, base):
        return True

    def __init__(self, bed, directory, base):
        super().__init__(bed, directory, base)
        self.config = directory / "multideployer.yaml"
        agent = directory / "agent.yml"
        agent.write_text(f"---\n:root_dir: {directory}/root\n:log_dir: {directory}/log\n:max_revisions: 5\n")

    def command(self, step, wanted):
        host = self.base.split("://")[1].split("@")[-1]
        text = f'version: 2\nhosts:\n  "{host}":\n'
        if self.base.startswith("ssh:"):
            text += f"    auth: {{ssh_key_file: {self.bed.key}}}\n"
            text += f"    known_hosts_file: {self.bed.known_hosts}\n"
        else:
            text += f"    auth: {{token_file: {self.bed.token}}}\n    ca_file: {self.bed.ca}\n"
        text += "apps:\n"
        for repository, commit in wanted:
            name = repository.name.removesuffix(".git").replace("/", "-")
            text += f'  - {{name: {name}, source: "{self.base}/{repository.name}", release: "{commit}"}}\n'
        self.config.write_text(text)
        return [
            Ours.binary, "deploy", "--config", self.config,
            "--cache-dir", self.directory / "cache", "--state-dir", self.directory / "state",
            "--log", self.directory / "log/multideployer.log",
            "--codedeploy-local-path", "builtin",
            "--agent-configuration-file", self.directory / "agent.yml",
        ]  # fmt: skip


class GitWorktree(Way):
    name = "git fetch + worktree"

    @classmethod
    def can(cls, base):
        return True

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


class Nothing(Way):
    """The floor of a run that has nothing to do."""

    name = "floor: an empty process"
    steps = ("no-op",)

    @classmethod
    def can(cls, base):
        return True

    def command(self, step, wanted):
        return ["true"]


WAYS = [Ours, GitWorktree, GitArchive, Tarball, Download, Unpack, Nothing]
