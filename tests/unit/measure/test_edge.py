from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelyard.measure.edge import edge


@given(st.floats(0.0, 1.0), st.booleans())
def test_the_edge_is_found_from_either_side(limit: float, upwards: bool) -> None:
    outside = 1.0 if upwards else -1.0
    inside, refuted = edge(lambda x: abs(x) > limit, 0.0, outside, halvings=60)
    assert abs(inside) <= limit
    assert limit == 1.0 or abs(refuted) > limit
    assert abs(refuted - inside) <= 2.0**-52


def test_without_a_refuted_value_the_range_ends_where_it_ends() -> None:
    assert edge(lambda _: False, 0.0, -1.0, halvings=5) == (-1.0, -1.0)
