"""Dimensions that shrink together: channels, hidden units and attention heads, and what is tied to them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Node:
    size: int
    parent: int
    factor: int = 1
    """How many of this dimension's units lie side by side in one unit of the parent."""
    frozen: str = ""


@dataclass(frozen=True, slots=True)
class Axis:
    """A tensor's axis that holds a dimension: `inner` neighbours on the axis belong to one unit."""

    dim: int
    axis: int
    inner: int = 1


@dataclass(frozen=True, slots=True)
class Tie:
    """A constant whose axis shrinks with the dimension. `role` is "out" where it makes the units, "in" where
    it reads them, "along" where it only goes with them (a bias, a scale)."""

    constant: str
    axis: int
    inner: int
    role: str


@dataclass(slots=True)
class Dims:
    """Dimensions as a union-find forest, in which a parent may be coarser: heads over their columns."""

    _nodes: list[_Node] = field(default_factory=list)
    _ties: list[tuple[int, Tie]] = field(default_factory=list)

    def new(self, size: int) -> int:
        """A dimension of that many units, tied to nothing yet."""
        self._nodes.append(_Node(size, len(self._nodes)))
        return len(self._nodes) - 1

    def root(self, dim: int) -> tuple[int, int]:
        """The dimension's representative, and how many of its units make one of that."""
        factor = 1
        while self._nodes[dim].parent != dim:
            factor *= self._nodes[dim].factor
            dim = self._nodes[dim].parent
        return dim, factor

    def size(self, dim: int) -> int:
        """How many units the dimension's representative has."""
        return self._nodes[self.root(dim)[0]].size

    def freeze(self, dim: int, why: str) -> None:
        """The dimension must not shrink; the first reason is kept."""
        node = self._nodes[self.root(dim)[0]]
        node.frozen = node.frozen or why

    def why_frozen(self, dim: int) -> str:
        """The reason for which a dimension must not shrink; empty where it may."""
        return self._nodes[self.root(dim)[0]].frozen

    def tie(self, dim: int, constant: str, axis: int, inner: int, role: str) -> None:
        """The constant's axis, of `inner` elements a unit, shrinks with the dimension."""
        self._ties.append((dim, Tie(constant, axis, inner, role)))

    def unite(self, first: Axis, second: Axis) -> bool:
        """The two axes hold the same units; false, and both frozen, where they cannot."""
        (one, one_factor), (two, two_factor) = self.root(first.dim), self.root(second.dim)
        wide, narrow = first.inner * one_factor, second.inner * two_factor
        if one == two and wide == narrow:
            return True
        if wide < narrow:
            one, two, wide, narrow = two, one, narrow, wide
        fits = wide % narrow == 0 and self._nodes[one].size * wide == self._nodes[two].size * narrow
        if one == two or not fits:
            self.freeze(one, "is added to something of another make")
            self.freeze(two, "is added to something of another make")
            return False
        frozen = self._nodes[one].frozen or self._nodes[two].frozen
        self._nodes[two].parent, self._nodes[two].factor = one, wide // narrow
        self._nodes[one].frozen = frozen
        return True

    def coarsen(self, held: Axis, units: int) -> int | None:
        """The dimension cut into `units` groups of neighbours; `None`, and frozen, where it cannot be."""
        root, factor = self.root(held.dim)
        inner = held.inner * factor
        length = self._nodes[root].size * inner
        each = length // units
        if length % units or each % inner:
            self.freeze(root, "is cut across its units")
            return None
        if each == inner:
            return root
        made = self.new(units)
        self._nodes[made].frozen = self._nodes[root].frozen
        self._nodes[root].parent, self._nodes[root].factor = made, each // inner
        return made

    def groups(self) -> dict[int, list[Tie]]:
        """The ties of each representative, with `inner` counted in its units."""
        found: dict[int, list[Tie]] = {}
        for dim, tie in self._ties:
            root, factor = self.root(dim)
            found.setdefault(root, []).append(Tie(tie.constant, tie.axis, tie.inner * factor, tie.role))
        return found
