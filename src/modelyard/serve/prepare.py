"""What is checked and cleared once, before the first process of a service answers."""

from __future__ import annotations

import shutil

from modelyard.core.clock import SYSTEM_CLOCK
from modelyard.serve.access.guard import open_guard
from modelyard.serve.options import ServeOptions
from modelyard.serve.repository import Wanted
from modelyard.serve.worker_board import board_folder


def prepare(options: ServeOptions) -> None:
    """Raises `ServeError` when nobody could be let in, or the certificate is wrong.

    What an earlier service left behind for its workers is cleared away.
    """
    open_guard(options.state, SYSTEM_CLOCK, needed=options.needs_token)
    if options.tls is not None:
        options.tls.check()
    Wanted(options.state, options.endpoints).reset()
    shutil.rmtree(board_folder(options.state), ignore_errors=True)
