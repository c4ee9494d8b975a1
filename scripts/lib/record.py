"""record.py ROOT STORY PICTURE: carries out a story's commands in ROOT, on a terminal, and draws
what was seen. A story has a line for each command, with white space between its parts: seconds
to look at what it prints, its exit code, and itself; before `::`, what is run instead of what is
shown. A line `poster` marks what is seen where pictures do not move."""

import codecs
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from pathlib import Path

from terminal import Terminal, svg

COLUMNS, ROWS = 100, 30
# Pauses of the programs are cut to this many seconds; they are not what is shown.
LONGEST = 0.9
PROMPT = "\x1b[32m$\x1b[0m "
ENVIRONMENT = {"PATH": "/opt/bin:/usr/bin:/bin", "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": "/root"}


def carry_out(terminal, root, command):
    """Runs it with the terminal as its own; its exit code."""
    child, fd = pty.fork()
    if child == 0:
        os.chroot(root)
        os.chdir("/etc/multideployer")
        os.execve("/bin/bash", ["bash", "-c", command], ENVIRONMENT)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    decode = codecs.getincrementaldecoder("utf-8")().decode
    before = time.monotonic()
    while True:
        ready, _, _ = select.select([fd], [], [], 60)
        if not ready:
            raise TimeoutError(command)
        # What comes together is seen together.
        time.sleep(0.03)
        try:
            data = os.read(fd, 65536)
        except OSError:
            data = b""
        now = time.monotonic()
        terminal.wait(min(now - before, LONGEST))
        before = now
        if not data:
            break
        terminal.feed(decode(data))
        terminal.show()
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main():
    root, story, picture = sys.argv[1:]
    terminal = Terminal(COLUMNS, ROWS)
    poster = 0.0
    for line in Path(story).read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line == "poster":
            poster = terminal.clock
            continue
        look, wanted, command = line.split(None, 2)
        run, _, shown = command.rpartition(" :: ")
        run = run or shown
        terminal.feed(PROMPT)
        terminal.show()
        terminal.wait(0.5)
        for c in shown:
            terminal.feed("\x1b[2m#" if c == "#" else c)
            terminal.show()
            terminal.wait(0.035)
        terminal.wait(0.25)
        terminal.feed("\x1b[0m\r\n")
        code = carry_out(terminal, root, run)
        if code != int(wanted):
            sys.exit(f"{shown}: exit code {code} instead of {wanted}")
        terminal.show()
        terminal.wait(float(look))
    title = "multideployer: three applications, one deployment group"
    Path(picture).write_text(svg(terminal, title, poster, hold=2.0))


if __name__ == "__main__":
    main()
