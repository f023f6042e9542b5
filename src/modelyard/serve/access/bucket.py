"""`Bucket`: a token bucket, the rate limit that allows a short burst."""

from __future__ import annotations


class Bucket:
    """Fills at `rate` a second up to `burst`; each request takes one. The caller brings the time.

    >>> bucket = Bucket(rate=2.0, burst=2, now=0.0)
    >>> [bucket.take(0.0), bucket.take(0.0), bucket.take(0.0), bucket.take(0.5)]
    [0.0, 0.0, 0.5, 0.0]
    """

    __slots__ = ("_burst", "_left", "_rate", "_then")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"a bucket fills and holds one or more, got {rate} a second up to {burst}")
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._then = now

    def take(self, now: float) -> float:
        """Takes one and returns 0, or takes nothing and returns the seconds until there is one."""
        self._left = min(self._burst, self._left + max(0.0, now - self._then) * self._rate)
        self._then = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate
