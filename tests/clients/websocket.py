"""WebSocket client for the tests, by the package `websockets`. Prints what it gets, a line each."""

import asyncio
import sys

import websockets


async def rounds(ws):
    """Does what each line of standard input asks for."""
    loop = asyncio.get_running_loop()
    while True:
        asked = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        if asked == "close":
            await ws.send("close 4002 enough")
            try:
                await ws.recv()
            except websockets.ConnectionClosed:
                print(ws.close_code, ws.close_reason, flush=True)
            return
        await ws.send("h\u00e9llo")
        print(await ws.recv())
        await (await ws.ping())
        print("pong")
        await ws.send("bytes " + "x" * (90_000 - len("bytes ")))
        print(len(await ws.recv()), "bytes")
        await ws.send(["frag", "", "ments"])
        print(await ws.recv(), flush=True)


async def main():
    sys.stdout.reconfigure(encoding="utf-8")
    async with websockets.connect(sys.argv[1], subprotocols=["chat.v1"]) as ws:
        print(ws.subprotocol)
        print(await ws.recv(), flush=True)
        await rounds(ws)


asyncio.run(main())
