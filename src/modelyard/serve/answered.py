"""One request's part of a run's outputs, and the run's text when several callers want JSON."""

from __future__ import annotations

import numpy as np
import orjson

from modelyard.core.spec import Tensors


class Answered(dict[str, "np.ndarray"]):
    """The outputs of one request: a dict of its own rows, which knows the whole run that they are of.

    >>> whole = {"y": np.array([[1.0, 2.0], [3.0, 4.5]], np.float32)}
    >>> Answered({"y": whole["y"][1:]}, whole, 1, {}).text("y", 1)
    b'[3.0,4.5]'
    """

    __slots__ = ("_start", "_texts", "_whole")

    def __init__(
        self, part: Tensors, whole: Tensors, start: int, texts: dict[str, list[bytes]] | None = None
    ) -> None:
        super().__init__(part)
        self._whole = whole
        self._start = start
        self._texts = texts

    def text(self, name: str, rows: int) -> bytes:
        """A flat JSON list of this request's values of a float output `[N, K]`, K at least 1.

        The run is written once for all its callers, NaN and infinities as `null`.
        """
        whole = self._whole[name]
        if self._texts is None:
            return orjson.dumps(whole.reshape(-1), option=orjson.OPT_SERIALIZE_NUMPY)
        lines = self._texts.get(name)
        if lines is None:
            text = orjson.dumps(np.ascontiguousarray(whole), option=orjson.OPT_SERIALIZE_NUMPY)
            lines = self._texts[name] = text[2:-2].split(b"],[")
        start = self._start
        if rows == 1:
            return b"[" + lines[start] + b"]"
        return b"[" + b",".join(lines[start : start + rows]) + b"]"
