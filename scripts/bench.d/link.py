"""A slow link: passes TCP connections on to a port of this host, late and not too fast.

link.py TARGET_PORT ROUND_TRIP_SECONDS BITS_PER_SECOND

Prints its own port. What is sent arrives half a round trip later, all connections share the
rate of each direction, and a new connection costs a round trip before its first byte, as the
handshake of TCP does. It stands in for a network device with netem, which needs a kernel module.
"""

import asyncio
import sys

PIECE = 1 << 14


class Lane:
    """One direction: when the next byte may leave."""

    def __init__(self, rate):
        self.rate, self.free = rate, 0.0

    def leave(self, now, count):
        self.free = max(self.free, now) + count * 8 / self.rate
        return self.free


async def carry(reader, writer, lane, late, begin):
    loop = asyncio.get_running_loop()
    # As much as is on its way in one round trip, and no more: the sender is slowed down.
    queue = asyncio.Queue(maxsize=max(64, int(lane.rate / 8 * late * 2 / PIECE) + 8))

    async def deliver():
        while True:
            at, piece = await queue.get()
            pause = at - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            if piece is None:
                break
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    delivery = asyncio.ensure_future(deliver())
    try:
        while True:
            piece = await reader.read(PIECE)
            now = max(loop.time(), begin)
            await queue.put((lane.leave(now, len(piece)) + late, piece or None))
            if not piece:
                break
        await delivery
    except (ConnectionError, OSError):
        delivery.cancel()


async def main(port, round_trip, rate):
    up, down = Lane(rate), Lane(rate)
    loop = asyncio.get_running_loop()

    async def connected(reader, writer):
        begin = loop.time() + round_trip
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            carry(reader, other_writer, up, round_trip / 2, begin),
            carry(other_reader, writer, down, round_trip / 2, begin),
            return_exceptions=True,
        )
        for one in (writer, other_writer):
            one.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
    except KeyboardInterrupt:
        pass
