"""Clients of one service on four roads for the tests: packets on TCP and TLS, and on both in
WebSocket, by the package `websockets`. Prints what each line of standard input brings."""

import asyncio
import ssl
import sys

import websockets


class Stream:
    """Packets on a connection as they are."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, data):
        self.writer.write(data)

    async def read(self, length):
        return await self.reader.readexactly(length)

    async def close(self):
        self.writer.close()


class Carried:
    """Packets in a stream of WebSocket. Each is sent in two frames, with a ping in between."""

    def __init__(self, ws):
        self.ws, self.behind = ws, b""

    async def send(self, data):
        await self.ws.send(data[:3])
        pong = await self.ws.ping()
        await self.ws.send(data[3:])
        await pong

    async def read(self, length):
        while len(self.behind) < length:
            self.behind += await self.ws.recv()
        data, self.behind = self.behind[:length], self.behind[length:]
        return data

    async def close(self):
        await self.ws.close()


async def send(client, text):
    """Sends a packet: two bytes of length, and a text."""
    data = text.encode()
    await client.send(len(data).to_bytes(2, "big") + data)


async def receive(client):
    """Receives a packet."""
    return (await client.read(int.from_bytes(await client.read(2), "big"))).decode()


async def main():
    certificate, tcp, tls, ws, wss = sys.argv[1:]
    context = ssl.create_default_context(cafile=certificate)
    protocols = ["other", "packets"]
    sockets = [
        await websockets.connect(f"ws://127.0.0.1:{ws}/", subprotocols=protocols),
        await websockets.connect(
            f"wss://127.0.0.1:{wss}/", ssl=context, server_hostname="localhost", subprotocols=protocols
        ),
    ]
    clients = [
        Stream(*await asyncio.open_connection("127.0.0.1", int(tcp))),
        Stream(*await asyncio.open_connection("127.0.0.1", int(tls), ssl=context, server_hostname="localhost")),
        *map(Carried, sockets),
    ]
    # A handshake of TLS is over for the client before its session has begun.
    for client in clients:
        await send(client, "hello")
        assert (await receive(client)).endswith("1 hello\n")
    print(*(s.subprotocol for s in sockets), flush=True)
    while number := sys.stdin.readline().strip():
        answers = []
        for who, client in enumerate(clients):
            await send(client, f"all {who} says {number}")
            answer, _, _ = (await receive(client)).partition(" ")
            answers.append(answer)
            for other in clients:
                if other is not client:
                    heard = await receive(other)
                    assert heard == f"{who} says {number}", heard
        print(*answers, flush=True)
    for client in clients:
        await client.close()
    print(*(s.close_code for s in sockets), flush=True)


# A failure is no hang.
asyncio.run(asyncio.wait_for(main(), 120))
