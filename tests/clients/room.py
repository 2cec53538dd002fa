"""Peer of the chat over WebSocket: prints each message, and sends each line of its input."""

import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1]) as socket:

        async def receive():
            async for message in socket:
                print(message, flush=True)

        receiver = asyncio.ensure_future(receive())
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await socket.send(line.rstrip("\n"))
        await socket.close()
        await receiver


asyncio.run(main())
