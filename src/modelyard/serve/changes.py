"""Loading and unloading as a request asks for it: answered when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from modelyard.core.errors import RequestError
from modelyard.serve.exchange import JSON_TYPE, Exchange
from modelyard.serve.replies import Replies
from modelyard.serve.repository import Repository, check_change


class Changes:
    """Has the repository change what is served; on the event loop's thread."""

    def __init__(self, repository: Repository | None, replies: Replies) -> None:
        self._repository = repository
        self._replies = replies
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, name: str, load: bool, exchange: Exchange) -> None:
        """Loads or unloads an endpoint; the reply comes when that is done."""
        if self._repository is None:
            raise RequestError("endpoints are not loaded and unloaded here", status=501,
                               fix="the service follows the store")  # fmt: skip
        check_change(exchange.body)
        changing = self._repository.load(name) if load else self._repository.unload(name)
        task = asyncio.get_running_loop().create_task(self._change(changing, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change(self, changing: Awaitable[None], exchange: Exchange) -> None:
        try:
            await changing
            self._replies.send(exchange.reply, 200, JSON_TYPE, b"{}")
        except RequestError as error:
            self._replies.refuse(error, exchange.reply)
        except Exception as error:  # a bug must cost one request, not the process.
            self._replies.admit_fault(error, exchange.reply)
