"""A layered drawing of a graph (Sugiyama, Tagawa and Toda 1981): layers, order within them, coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT, GAP_X, GAP_Y = 168, 46, 26, 34
_SWEEPS = 4
_BENDS = 20_000
"""Edges are bent around the layers between up to so many bends in all; beyond, they go straight."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each box is (its upper left corner) and each edge's points, in pixels."""

    boxes: tuple[tuple[float, float], ...]
    edges: tuple[tuple[tuple[float, float], ...], ...]
    width: float
    height: float


def layered(count: int, edges: Sequence[tuple[int, int]]) -> Layout:
    """Places `count` boxes so that every edge (from, to) points down. Edges must not form a cycle.

    >>> found = layered(3, [(0, 1), (1, 2), (0, 2)])
    >>> [y for _, y in found.boxes] == sorted(y for _, y in found.boxes)
    True
    """
    depth = _depths(count, edges)
    chains = _chains(depth, edges)
    total = count + sum(len(chain) - 2 for chain in chains)
    layer = [*depth, *[0] * (total - count)]
    above: list[list[int]] = [[] for _ in range(total)]
    below: list[list[int]] = [[] for _ in range(total)]
    for chain in chains:
        for step, item in enumerate(chain[1:-1], start=1):
            layer[item] = depth[chain[0]] + step
        for upper, lower in pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
    rows: list[list[int]] = [[] for _ in range(max(layer, default=0) + 1)]
    for item in range(total):
        rows[layer[item]].append(item)
    place = {item: float(spot) for row in rows for spot, item in enumerate(row)}
    for sweep in range(_SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            # The barycentre of its neighbours; a box without any stays where it is.
            weight = {i: sum(place[n] for n in near[i]) / len(near[i]) if near[i] else place[i] for i in row}
            row.sort(key=lambda item: (weight[item], place[item]))
            place.update({item: float(spot) for spot, item in enumerate(row)})
    return _drawn(count, rows, chains)


def _depths(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way from a start to each box."""
    depth, waiting = [0] * count, [0] * count
    after: list[list[int]] = [[] for _ in range(count)]
    for upper, lower in edges:
        after[upper].append(lower)
        waiting[lower] += 1
    ready = [item for item in range(count) if not waiting[item]]
    done = 0
    while ready:
        item = ready.pop()
        done += 1
        for lower in after[item]:
            depth[lower] = max(depth[lower], depth[item] + 1)
            waiting[lower] -= 1
            if not waiting[lower]:
                ready.append(lower)
    if done < count:
        raise ValueError("the edges form a cycle")
    return depth


def _chains(depth: list[int], edges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Each edge as a chain from box to box with a bend in every layer that it crosses."""
    following, bends, chains = len(depth), 0, []
    for upper, lower in edges:
        crossed = depth[lower] - depth[upper] - 1
        if bends + crossed > _BENDS:
            crossed = 0
        bends += crossed
        chains.append([upper, *range(following, following + crossed), lower])
        following += crossed
    return chains


def _drawn(count: int, rows: list[list[int]], chains: list[list[int]]) -> Layout:
    spans = [sum((WIDTH if item < count else 8) + GAP_X for item in row) - GAP_X for row in rows]
    wide = max(spans, default=0) + 2 * GAP_X
    corner: dict[int, tuple[float, float]] = {}
    for number, (row, span) in enumerate(zip(rows, spans, strict=True)):
        x, y = (wide - span) / 2, GAP_Y / 2 + number * (HEIGHT + GAP_Y)
        for item in row:
            corner[item] = (x, y)
            x += (WIDTH if item < count else 8) + GAP_X
    lines = []
    for chain in chains:
        points = [(corner[chain[0]][0] + WIDTH / 2, corner[chain[0]][1] + HEIGHT)]
        for item in chain[1:-1]:
            x, y = corner[item]
            points += [(x + 4, y), (x + 4, y + HEIGHT)]
        points.append((corner[chain[-1]][0] + WIDTH / 2, corner[chain[-1]][1]))
        lines.append(tuple(points))
    high = GAP_Y / 2 + len(rows) * (HEIGHT + GAP_Y)
    return Layout(tuple(corner[item] for item in range(count)), tuple(lines), wide, high)
