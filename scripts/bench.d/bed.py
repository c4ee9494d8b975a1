"""The test bed: real git servers, slow links to them, and one measured run of a command."""

import base64
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKEN = "bench-0123456789abcdef"
ROUND_TRIP, RATE = 0.020, 200e6


class Bed:
    """The git servers, and a slow link to each."""

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
        self.links = []
        self.far = f"https://127.0.0.1:{self.slow(self.near)}"
        near = (self.out / "ssh").read_text().strip()
        port = self.slow(near)
        self.far_ssh = f"{near.rsplit(':', 1)[0]}:{port}"
        known = (self.out / "known_hosts").read_text()
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(known.replace(f":{near.rsplit(':', 1)[1]} ", f":{port} "))
        self.key = self.out / "id_ed25519"
        basic = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
        self.authorization = f"Authorization: Basic {basic}"
        self.git_config = directory / "gitconfig"
        self.git_config.write_text(
            f'[http]\n sslCAInfo = {self.ca}\n extraHeader = "{self.authorization}"\n'
        )
        self.curl_config = directory / "curlrc"
        self.curl_config.write_text(
            f'silent\nshow-error\nfail\nuser = "x-access-token:{TOKEN}"\ncacert = "{self.ca}"\n'
        )

    def slow(self, near):
        """The port of a slow link to the server there."""
        port = near.rsplit(":", 1)[1]
        link = subprocess.Popen(
            [sys.executable, HERE / "link.py", port, str(ROUND_TRIP), str(RATE)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.links.append(link)
        return int(link.stdout.readline())

    def counted(self):
        """Requests since this was last asked, and bytes of bodies received and sent."""
        (self.out / "requests").unlink(missing_ok=True)
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        wait_for(self.out / "requests", self.server)
        requests, got, sent = map(int, (self.out / "requests").read_text().split())
        return requests, got, sent

    def stop(self):
        self.server.stdin.close()
        for link in self.links:
            link.terminate()
            link.wait()
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
