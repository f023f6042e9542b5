"""A small real HTTP server on its own thread and loop, that can stall, refuse and break connections."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

METADATA = {
    "name": "m", "platform": "none", "versions": ["1"],
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}  # fmt: skip
ANSWER = json.dumps({"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 1],
                                                     "data": [1.0]}]}).encode()  # fmt: skip


class Server:
    """Answers every POST; `behave` may return another (status, seconds to wait, close) for request n."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.connections = 0
        self.behave: Any = lambda number: (200, 0.0, False)
        self.stalled_until = 0.0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        self.ready.wait(5)

    def _serve(self) -> None:
        async def main() -> None:
            self.stop = asyncio.Event()
            self.loop = asyncio.get_running_loop()
            server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            self.ready.set()
            await self.stop.wait()
            server.close()
            for _ in range(5):
                await asyncio.sleep(0)  # who was accepted just now begins, and closes what is theirs
            left = list(self.tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        self.tasks: set[Any] = set()
        asyncio.run(main())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.add(asyncio.current_task())
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                body = await reader.readexactly(length)
                if not await self._answer(head, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self.tasks.discard(asyncio.current_task())
            writer.close()

    async def _answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        status, wait, close = 200, 0.0, b"connection: close" in head.lower()
        data = ANSWER
        if head.startswith(b"GET"):
            data = json.dumps(METADATA if b"/models/" in head else {"name": "s", "extensions": []}).encode()
            if b"/models/" in head and b"/models/m " not in head:
                status, data = 404, b'{"error": "there is no such model"}'
        elif b"/repository/" in head:
            data = b'[{"name":"m","state":"READY"}]'
        else:
            self.seen.append(body)
            status, wait, broken = self.behave(len(self.seen))
            close = close or broken
            now = self.loop.time()
            if wait:
                self.stalled_until = max(self.stalled_until, now + wait)
            if self.stalled_until > now:
                await asyncio.sleep(self.stalled_until - now)
            if status == 0:
                return False
        text = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n" + ("Connection: close\r\n" * close)
        writer.write(text.encode() + b"\r\n" + data)
        await writer.drain()
        return not close


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()
