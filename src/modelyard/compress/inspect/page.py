"""The inspection as one self-contained page: the graph as SVG, the operators as tables, no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from modelyard.compress.inspect.facts import NodeFact
from modelyard.compress.inspect.inspection import Inspection, NodeTime
from modelyard.compress.inspect.layout import HEIGHT, WIDTH, layered
from modelyard.core.unit import show_seconds

_COLOURS = {
    "Conv": "#2f6f9f", "Gemm": "#2f6f9f", "MatMul": "#2f6f9f", "Relu": "#9f4f2f", "Sigmoid": "#9f4f2f",
    "Softmax": "#9f4f2f", "MaxPool": "#4f7f3f", "AveragePool": "#4f7f3f", "GlobalAveragePool": "#4f7f3f",
    "QuantizeLinear": "#8f7f2f", "DequantizeLinear": "#8f7f2f", "Reshape": "#6f6f6f", "Transpose": "#6f6f6f",
    "Flatten": "#6f6f6f", "BatchNormalization": "#6f4f8f", "LayerNormalization": "#6f4f8f",
}  # fmt: skip
_STYLE = """
:root{color-scheme:light dark}body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #8884}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}figure{overflow:auto;margin:1rem 0;border:1px solid #8884;max-height:80vh}
svg text{font:11px system-ui,sans-serif;fill:#fff}svg path{fill:none;stroke:#888;stroke-width:1.2}.faded{opacity:.45}
"""  # noqa: E501


def page(found: Inspection, title: str) -> str:
    """The whole page as HTML; every name out of the model is escaped."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style><h1>{escape(title)}</h1>",
        _table(("", ""), summary_rows(found)),
        "<h2>Time by operator</h2>"
        + _table(("operator", "how many", "time", "share", ""), operator_rows(found)),
        "<h2>Nodes</h2><p>Faded boxes run inside another operator, or were computed when the model was "
        "loaded. The stripe under a box is its share of the time.</p>",
        f"<figure>{graph_svg(found)}</figure>",
        _table(
            ("node", "operator", "answers", "MACs", "weights", "time", "ran as", "under the roof"),
            [_node_row(found, node) for node in found.facts.nodes],
        ),
    ]
    if found.notes:
        parts.append("<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}" for note in found.notes) + "</ul>")
    return "\n".join(parts)


def summary_rows(found: Inspection) -> list[tuple[str, str]]:
    """What the model is, in a few lines: label and text."""
    facts, memory = found.facts, found.memory
    at = "" if memory.node is None else f", while {facts.nodes[memory.node].name} runs"
    rows = [
        ("digest", found.digest),
        ("file", f"{facts.bytes:,} bytes, of which {facts.parameters:,} are constants"),
        ("nodes", f"{len(facts.nodes)}: " + ", ".join(f"{name} {n}" for name, n in facts.operators.items())),
        ("MACs", f"{facts.macs:,} a row"),
        ("activations", f"{memory.peak:,} bytes at the peak{at}"),
    ]
    if found.runs:
        rows.append(
            ("time", f"{show_seconds(found.seconds)} a row in {found.runtime}'s operators, one thread")
        )
        int8 = sum(run.int8 for run in found.runs)
        meant = sum(node.int8 for node in facts.nodes)
        lost = f"; in float against the graph: {', '.join(found.not_int8)}" if found.not_int8 else ""
        rows.append(("int8", f"{int8} operators ran in int8, {meant} nodes are meant to{lost}"))
    if found.roof is not None:
        roof = found.roof
        rows.append(
            (
                "machine",
                f"{roof.machine}: {roof.bandwidth / 1e9:.1f} GB/s, {roof.float32 / 1e9:.0f} GFLOP/s float32, "
                f"{roof.int8 / 1e9:.0f} GOP/s int8 on one thread, measured",
            )
        )
    return rows


def operator_rows(found: Inspection) -> list[tuple[str, str, str, str, str]]:
    """The engine's operators, the dearest first."""
    total = found.seconds or 1.0
    return [
        (name, str(count), show_seconds(seconds), f"{seconds / total:.0%}", "int8" if int8 else "")
        for name, count, seconds, int8 in found.by_operator()
    ]


def roof_text(time: NodeTime | None) -> str:
    """A node's place under the roofline, in words."""
    if time is None or not time.bound:
        return ""
    return f"{time.reached:.0%} of the {time.bound} roof at {time.intensity:.3g} op/byte"


def graph_svg(found: Inspection) -> str:
    """The nodes in layers, joined where one reads what another gives."""
    nodes = [node for node in found.facts.nodes if node.operator != "Constant"]
    place = {node.index: number for number, node in enumerate(nodes)}
    makers = {name: node.index for node in nodes for name in node.gives}
    edges = sorted(
        {
            (place[makers[name]], place[node.index])
            for node in nodes
            for name in node.reads
            if name in makers and makers[name] != node.index
        }
    )
    drawn = layered(len(nodes), edges)
    total = found.seconds or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawn.width:.0f}" height="{drawn.height:.0f}" '
        f'viewBox="0 0 {drawn.width:.0f} {drawn.height:.0f}" role="img" aria-label="the graph">'
    ]
    parts += [f'<path d="{_path(points)}"/>' for points in drawn.edges]
    for node, (x, y) in zip(nodes, drawn.boxes, strict=True):
        parts.append(_box(found, node, x, y, total))
    return "".join([*parts, "</svg>"])


def _box(found: Inspection, node: NodeFact, x: float, y: float, total: float) -> str:
    time = found.times.get(node.index)
    faded = ' class="faded"' if time is not None and time.into else ""
    colour = _COLOURS.get(node.operator, "#456")
    share = 0.0 if time is None else time.seconds / total
    told = [f"{node.name} ({node.operator})", f"{node.macs:,} MACs, {node.weights:,} bytes of weights"]
    if time is not None:
        told.append(f"in {time.into}" if time.into else f"{time.operator}: {show_seconds(time.seconds)}")
        told += [text for text in (roof_text(time),) if text]
    short = node.operator + (" · int8" if time is not None and time.int8 else "")
    return (
        f'<g{faded}><title>{escape(chr(10).join(told))}</title><rect x="{x:.1f}" y="{y:.1f}" rx="5" '
        f'width="{WIDTH}" height="{HEIGHT}" fill="{colour}"/>'
        f'<text x="{x + 8:.1f}" y="{y + 18:.1f}" font-weight="600">{escape(_cut(short))}</text>'
        f'<text x="{x + 8:.1f}" y="{y + 34:.1f}">{escape(_cut(_answers(found, node)))}</text>'
        f'<rect x="{x:.1f}" y="{y + HEIGHT - 4:.1f}" width="{WIDTH * share:.1f}" height="4" fill="#e33"/></g>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    first, *rest = points
    text = f"M{first[0]:.1f} {first[1]:.1f}"
    x0, y0 = first
    for x, y in rest:
        middle = (y0 + y) / 2
        text += f"C{x0:.1f} {middle:.1f} {x:.1f} {middle:.1f} {x:.1f} {y:.1f}"
        x0, y0 = x, y
    return text


def _answers(found: Inspection, node: NodeFact) -> str:
    shapes = []
    for name in node.gives:
        fact = found.facts.tensors.get(name)
        shapes.append("?" if fact is None or fact.shape is None else "×".join(map(str, fact.shape)) or "1")
    return ", ".join(shapes)


def _node_row(found: Inspection, node: NodeFact) -> tuple[str, ...]:
    time = found.times.get(node.index)
    taken = "" if time is None or time.into else show_seconds(time.seconds)
    ran = "" if time is None else (f"in {time.into}" if time.into and time.into != "folded" else time.into)
    if time is not None and not time.into:
        ran = time.operator + (", int8" if time.int8 else "")
    return (
        node.name, node.operator, _answers(found, node), f"{node.macs:,}" if node.macs else "",
        f"{node.weights:,}" if node.weights else "", taken, ran, roof_text(time),
    )  # fmt: skip


def _cut(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}" for cell in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{top}{body}</table>" if top else f"<table>{body}</table>"
