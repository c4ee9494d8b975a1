"""A slow link: passes TCP connections on to a port of this host, late and not too fast.

link.py TARGET_PORT ROUND_TRIP_SECONDS BITS_PER_SECOND

Prints its own port. What is sent arrives half a round trip later, all connections share the
rate of each direction, and a new connection costs a round trip before its first byte, as the
handshake of TCP does. It stands in for a network device with netem, which needs a kernel module.
"""

import queue
import socket
import sys
import threading
import time

PIECE = 1 << 15


class Lane:
    """One direction: when the last bit of a piece leaves."""

    def __init__(self, rate):
        self.rate, self.free, self.lock = rate, 0.0, threading.Lock()

    def leave(self, now, count):
        with self.lock:
            self.free = max(self.free, now) + count * 8 / self.rate
            return self.free


def carry(source, target, lane, late, begin):
    # As much as is on its way in one round trip, and no more: the sender is slowed down.
    pieces = queue.Queue(maxsize=int(lane.rate / 8 * late * 2 / PIECE) + 8)

    def receive():
        piece = b"?"
        while piece:
            try:
                piece = source.recv(PIECE)
            except OSError:
                piece = b""
            now = max(time.monotonic(), begin)
            pieces.put((lane.leave(now, len(piece)) + late, piece))

    def send():
        piece = b"?"
        while piece:
            at, piece = pieces.get()
            time.sleep(max(0, at - time.monotonic()))
            try:
                if piece:
                    target.sendall(piece)
                else:
                    target.shutdown(socket.SHUT_WR)
            except OSError:
                # Nobody listens any more; the sender is to know.
                source.close()

    for work in (receive, send):
        threading.Thread(target=work, daemon=True).start()


def main(port, round_trip, rate):
    up, down = Lane(rate), Lane(rate)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        near, _ = listener.accept()
        begin = time.monotonic() + round_trip
        far = socket.create_connection(("127.0.0.1", port))
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        carry(near, far, up, round_trip / 2, begin)
        carry(far, near, down, round_trip / 2, begin)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
