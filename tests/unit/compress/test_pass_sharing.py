"""Shared weights and the stored file: optimal codes, exact restoration, and files that mean harm."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
import zlib
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from modelyard.compress.passes.prune import MagnitudePrune
from modelyard.compress.passes.weight_sharing import WeightSharing
from modelyard.compress.sharing_clusters import assign, clusters
from modelyard.compress.sharing_file import FORMAT, MAGIC, pack, unpack
from modelyard.compress.sharing_huffman import LANE, code_lengths, codes, decode, encode
from modelyard.core.errors import CompressError
from modelyard.model.onnx_runtime import OnnxRuntime
from modelyard.model.predict import predict
from modelyard.model.reader import read_model

Case: TypeAlias = Any


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=256).filter(lambda c: sum(map(bool, c)) > 1))
@settings(max_examples=60, deadline=None)
def test_codes_are_within_a_bit_of_the_entropy(counts: list[int]) -> None:
    frequency = np.array(counts)
    lengths = code_lengths(frequency).astype(np.int64)
    share = frequency[frequency > 0] / frequency.sum()
    entropy = float(-(share * np.log2(share)).sum())
    mean = float((lengths * frequency).sum() / frequency.sum())
    assert entropy - 1e-9 <= mean < entropy + 1
    assert (lengths[frequency == 0] == 0).all()
    assert sum(2.0 ** -int(length) for length in lengths[lengths > 0]) == 1.0


def plain_huffman(counts: list[int]) -> int:
    """The bits of Huffman's own construction: the sum of all merged weights."""
    import heapq

    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


@given(st.lists(st.integers(1, 500), min_size=2, max_size=64))
@settings(max_examples=60, deadline=None)
def test_codes_are_as_short_as_huffmans(counts: list[int]) -> None:
    assert int((code_lengths(np.array(counts)) * np.array(counts)).sum()) == plain_huffman(counts)


def test_codes_never_exceed_sixteen_bits_even_for_fibonacci() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = code_lengths(np.array(counts))
    assert lengths.max() == 16
    codes(lengths)
    symbols = np.arange(40, dtype=np.uint8)
    data, sizes = encode(symbols, lengths)
    assert (decode(data, sizes, lengths, 40) == symbols).all()


@given(npst.arrays(np.uint8, st.integers(1, 3 * LANE + 5), elements=st.integers(0, 7)))
@settings(max_examples=30, deadline=None)
def test_what_is_encoded_is_decoded(symbols: np.ndarray[Any, Any]) -> None:
    lengths = code_lengths(np.bincount(symbols, minlength=8))
    data, sizes = encode(symbols, lengths)
    assert (decode(data, sizes, lengths, len(symbols)) == symbols).all()


@pytest.mark.parametrize("lengths", [[1, 1, 1], [2, 2, 2], [0, 0], [17, 1], [2]])
def test_lengths_that_are_no_prefix_code_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="code"):
        codes(np.array(lengths, dtype=np.uint8))


@given(npst.arrays(np.float32, 300, elements=st.floats(-10, 10, width=32)), st.integers(2, 32))
@settings(max_examples=60, deadline=None)
def test_every_value_goes_to_its_nearest_centre(values: np.ndarray[Any, Any], count: int) -> None:
    centres = clusters(values, count)
    assert len(centres) <= count
    assert (np.diff(centres) > 0).all()
    places = assign(values, centres)
    nonzero = values != 0
    nearest = np.abs(values[:, None].astype(np.float64) - centres).min(axis=1)
    found = np.abs(values.astype(np.float64) - centres[places])
    assert (found[nonzero] <= nearest[nonzero] + 1e-6).all()
    assert (centres[places][~nonzero] == 0).all()


def test_clusters_are_no_worse_than_sklearn_from_the_same_start() -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(0).normal(size=2000).astype(np.float32)
    start = np.linspace(values.min(), values.max(), 16)[:, None]
    theirs = KMeans(16, init=start, n_init=1, max_iter=50, tol=0).fit(values[:, None]).inertia_
    centres = clusters(values, 16)
    ours = float(np.square(values.astype(np.float64) - centres[assign(values, centres)]).sum())
    assert ours <= theirs * 1.001


def test_the_codebook_graph_answers_as_the_plain_one(wide: Case) -> None:
    plain, stored = (
        WeightSharing(store=kind).apply(wide.model, wide.calibration).model for kind in ("plain", "codebook")
    )
    was, now = (predict(OnnxRuntime().load(model), wide.held.tensors) for model in (plain, stored))
    np.testing.assert_array_equal(was, now)
    assert stored.size < 0.27 * wide.model.size
    values = onnx.ModelProto.FromString(plain.onnx).graph.initializer
    assert all(
        len(set(onnx.numpy_helper.to_array(item).ravel().tolist())) <= 32
        for item in values
        if len(item.dims) > 1
    )


def test_deep_compression_of_a_pruned_graph(wide: Case) -> None:
    """Pruned to a tenth and shared in 5 bits, the file is smaller than a twentieth, and is restored."""
    pruned = MagnitudePrune(0.9, scope="layer").apply(wide.model, wide.calibration).model
    shared = WeightSharing(store="plain").apply(pruned, wide.calibration).model
    data = pack(shared.onnx)
    assert unpack(data) == shared.onnx
    assert len(data) < wide.model.size / 20
    zeros = [float((onnx.numpy_helper.to_array(item) == 0).mean()) for item in _weights(shared.onnx)]
    assert min(zeros) > 0.7
    read_model(unpack(data), task=shared.task, labels=shared.labels)
    # As a codebook in the graph the zeros have the index 0, and the file is as small.
    codebook = WeightSharing().apply(pruned, wide.calibration).model
    assert len(pack(codebook.onnx)) < 1.05 * len(data)
    was, now = (predict(OnnxRuntime().load(model), wide.held.tensors) for model in (shared, codebook))
    np.testing.assert_array_equal(was, now)


def _weights(data: bytes) -> list[Any]:
    return [item for item in onnx.ModelProto.FromString(data).graph.initializer if len(item.dims) > 1]


def graph_of(*arrays: np.ndarray[Any, Any]) -> bytes:
    constants = [onnx.numpy_helper.from_array(array, f"c{index}") for index, array in enumerate(arrays)]
    return onnx.helper.make_model(
        onnx.helper.make_graph([], "constants", [], [], constants)
    ).SerializeToString()


@given(
    st.lists(
        npst.arrays(
            st.sampled_from([np.float32, np.int8, np.int64, np.float16, np.uint8]),
            st.integers(0, 400),
            elements=st.integers(0, 3),
        ),
        max_size=4,
    ),
    st.floats(0, 1),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_any_graph_comes_back_byte_for_byte(arrays: list[Any], share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    sparse = [np.where(rng.random(array.shape) < share, array, 0).astype(array.dtype) for array in arrays]
    data = graph_of(*sparse, *arrays)
    assert unpack(pack(data)) == data


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_bytes_that_are_no_graph_come_back_too(data: bytes) -> None:
    assert unpack(pack(data)) == data


def test_gaps_of_every_length_come_back() -> None:
    values = np.zeros(4000, np.float32)
    for place in (0, 1, 255, 256, 511, 1020, 1276, 1531, 3999):
        values[place] = place + 1
    values[7] = np.float32("nan")
    values[9] = -0.0
    data = graph_of(values, np.zeros(1000, np.float32), np.full(1000, 2.5, np.float32))
    stored = pack(data)
    assert unpack(stored) == data
    assert len(stored) < 500


@pytest.fixture(scope="module")
def stored() -> bytes:
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 16, size=9000).astype(np.float32)
    sparse = np.where(rng.random(20_000) < 0.05, rng.integers(1, 5, 20_000), 0).astype(np.float32)
    return pack(graph_of(dense, sparse, rng.normal(size=50).astype(np.float32)))


def test_any_cut_is_told(stored: bytes) -> None:
    for end in [*range(200), *range(200, len(stored), 97)]:
        with pytest.raises(CompressError):
            unpack(stored[:end])
    with pytest.raises(CompressError, match="damaged"):
        unpack(stored + b"x")


def test_any_changed_byte_is_told(stored: bytes) -> None:
    rng = np.random.default_rng(1)
    for place in [*range(0, 120, 4), *rng.integers(0, len(stored), 30).tolist()]:
        broken = bytearray(stored)
        broken[place] ^= 1 << int(rng.integers(0, 8))
        with pytest.raises(CompressError):
            unpack(bytes(broken))


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_noise_behind_a_good_head_is_told(noise: bytes) -> None:
    head = struct.pack("<8sHQ32sI", MAGIC, FORMAT, 10_000, b"\0" * 32, 3)
    with pytest.raises(CompressError):
        unpack(head + noise)


def _head(length: int, parts: int = 1, version: int = FORMAT) -> bytes:
    return struct.pack("<8sHQ32sI", MAGIC, version, length, hashlib.sha256(b"").digest(), parts)


def _bomb() -> bytes:
    """A literal that claims a byte and would give a gigabyte."""
    state = zlib.compressobj(9)
    data = b"".join(state.compress(bytes(1 << 20)) for _ in range(64)) + state.flush()
    return _head(1) + struct.pack("<BQ", 0, 1) + struct.pack("<Q", len(data)) + data


def _dense(count: int) -> bytes:
    return (
        _head(count * 4)
        + struct.pack("<BQ", 1, count * 4)
        + struct.pack("<BH", 4, 1)
        + b"\1\0\0\0\1"
        + struct.pack("<Q", count)
    )


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "ends too early"),
        (b"PK\3\4" + bytes(80), "no stored model"),
        (_head(1, version=9), "another format"),
        (_head(1 << 40), "too large"),
        (_head(1 << 20, parts=1 << 31), "ends too early"),
        (_bomb(), "another length"),
        (_dense(1 << 27), "ends too early"),
        (_head(8) + struct.pack("<BQ", 7, 8), "unknown kind"),
        (_head(8) + struct.pack("<BQ", 1, 0), "empty, or larger"),
        (_head(8) + struct.pack("<BQ", 1, 9), "empty, or larger"),
        (_head(8) + struct.pack("<BQ", 1, 8) + struct.pack("<BH", 3, 1) + bytes(99), "values are impossible"),
        (
            _head(8) + struct.pack("<BQ", 1, 8) + struct.pack("<BH", 4, 999) + bytes(99),
            "values are impossible",
        ),
        (
            _head(8) + struct.pack("<BQ", 1, 8) + struct.pack("<BH", 4, 1) + bytes(99),
            "code length is impossible",
        ),
    ],
)
def test_files_that_mean_harm_are_refused_in_little_memory(data: bytes, match: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CompressError, match=match):
            unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_the_reader_decides_how_large_is_too_large(stored: bytes) -> None:
    with pytest.raises(CompressError, match="too large"):
        unpack(stored, largest=1000)


def test_too_few_weights_are_told(nets: Any, tiny: Case) -> None:
    with pytest.raises(CompressError, match="too few"):
        WeightSharing(bits=8, conv_bits=8).apply(nets.mlp(2).model, tiny.calibration)
