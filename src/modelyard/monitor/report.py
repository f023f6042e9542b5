"""One self-contained page that says how a release is doing."""

from __future__ import annotations

from importlib.resources import files

from modelyard.core.clock import iso
from modelyard.core.digest import is_digest, short
from modelyard.measure.measurement import Verdict
from modelyard.monitor.markup import Markup, empty, join, outcome, pill, table, tag, text
from modelyard.monitor.plots import interval_plot, latency_plot
from modelyard.monitor.report_data import ReportData, ScoreRow
from modelyard.monitor.report_drift import drift_figures
from modelyard.monitor.values import asked, interval
from modelyard.monitor.window_report import WindowReport

_SECTIONS = (
    ("alarms", "Alarms"),
    ("requirements", "Requirements"),
    ("score", "ML Test Score"),
    ("quality", "Quality and slices"),
    ("drift", "Drift"),
    ("latency", "Latency"),
    ("compression", "Compression"),
    ("canary", "Canary"),
    ("ledger", "Ledger"),
)
_TITLES = dict(_SECTIONS)


def render_report(data: ReportData) -> str:
    """The report as one HTML document with inline style and plots, no script and no outside resource.

    Every text is escaped. Needs matplotlib for the plots (`MissingExtra` otherwise). The same data gives
    the same bytes.
    """
    style = files("modelyard.monitor").joinpath("report.css").read_text(encoding="utf-8")
    name = " ".join(item for item in (data.release or data.project, data.version) if item)
    body = join(
        [
            tag("a", "Skip to the report", class_="skip", href="#main"),
            _header(data, name),
            tag("main", _cards(data), _alarms(data), _requirements(data), _score(data), _quality(data),
                _drift(data), _latency(data), _judgements(data, "compression"), _judgements(data, "canary"),
                _ledger(data), id="main"),
            tag("footer", f"Written by modelyard report, {data.generated}"),
        ]
    )  # fmt: skip
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{text(name)} · report</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _header(data: ReportData, name: str) -> Markup:
    facts = [
        ("project", data.project), ("endpoint", data.endpoint), ("task", data.task),
        ("digest", short(data.digest) if data.digest else ""), ("created", data.created),
        ("generated", data.generated), *data.facts,
    ]  # fmt: skip
    listed = join(tag("div", tag("dt", label), tag("dd", value)) for label, value in facts if value)
    links = join(tag("a", title, href=f"#{key}") for key, title in _SECTIONS)
    top = tag(
        "div",
        tag("p", "Release report", class_="eyebrow"),
        tag("h1", name),
        tag("dl", listed, class_="facts"),
    )
    return tag("header", top, tag("nav", links, aria_label="Sections"), class_="top")


def _cards(data: ReportData) -> Markup:
    kept = sum(verdict.passed for verdict in data.requirements)
    alarms = sum(len(report.alarms) for report in data.windows)
    judged = [report for report in data.windows if report.judged]
    rows = sum(report.rows for report in judged)
    if not data.windows:
        traffic = pill("no traffic seen", "plain")
    elif not judged:
        traffic = pill("too few rows to judge", "warn")
    else:
        traffic = pill(f"{alarms} raised", "bad") if alarms else pill("quiet", "good")
    wanted = len(data.requirements)
    state = (
        pill("all kept", "good")
        if wanted and kept == wanted
        else pill("see below", "bad" if wanted else "plain")
    )
    total = "–" if data.score is None else f"{data.score:g}"
    return tag(
        "div",
        _card("Requirements kept", f"{kept} of {wanted}", state),
        _card("ML Test Score", total, tag("span", data.band, class_="muted")),
        _card("Alarms", str(alarms), traffic),
        _card("Rows judged", f"{rows:,}", tag("span", f"in {len(judged)} windows", class_="muted")),
        class_="cards",
    )


def _card(label: str, value: str, note: Markup) -> Markup:
    return tag(
        "div", tag("div", label, class_="label"), tag("div", value, class_="value"), note, class_="card"
    )


def _section(key: str, lead: str, *parts: Markup) -> Markup:
    head = tag("h2", _TITLES[key], id=f"{key}-title")
    return tag("section", head, tag("p", lead, class_="lead"), *parts, id=key, aria_labelledby=f"{key}-title")


def _alarms(data: ReportData) -> Markup:
    rows = [
        (pill(alarm.kind, "bad"), alarm.subject, alarm.cause, tag("code", alarm.action), _when(report.until))
        for report in reversed(data.windows)
        for alarm in report.alarms
    ]
    open_claims = {(item.claim, item.why) for report in data.windows[-1:] for item in report.unjudged}
    lead = "What fired, why, and what to run. All features and windows share one false-alarm budget."
    heads = ("Kind", "About", "Cause", "Next step", "Window until")
    none = empty("No alarm." if data.windows else "No live traffic has been judged yet.")
    fired = table("Alarms, newest first", heads, rows) if rows else none
    left = (
        table("Not judged in the last window", ("Claim", "Why"), sorted(open_claims))
        if open_claims
        else Markup("")
    )
    return _section("alarms", lead, fired, left)


def _when(seconds: float) -> Markup:
    return tag("span", iso(seconds)[:19].replace("T", " ") if seconds else "–", class_="muted")


def _requirements(data: ReportData) -> Markup:
    rows = [
        (_named(verdict.claim.removeprefix("requirement.")), asked(verdict), _measured(verdict),
         _rows(verdict), outcome(verdict.passed), verdict.why)
        for verdict in data.requirements
    ]  # fmt: skip
    heads = ("Requirement", "Asked", "Measured [interval]", "Rows", "Verdict", "Why")
    shown = (
        table("Requirements", heads, rows, numbers=(3,))
        if rows
        else empty("The project states no requirement.")
    )
    return _section("requirements", "What good enough means, and what was measured.", shown)


def _named(name: str) -> Markup:
    return tag("strong", name)


def _measured(verdict: Verdict) -> str:
    return "; ".join(interval(item) for item in verdict.measurements[:1]) or "–"


def _rows(verdict: Verdict) -> str:
    return f"{verdict.measurements[0].n:,}" if verdict.measurements else "–"


def _score(data: ReportData) -> Markup:
    lead = (
        "28 tests, 7 a section; 1 point for what a command proved and is not expired, ½ for a signed note. "
        "The score is the smallest of the four sections."
    )
    if not data.lines:
        return _section("score", lead, empty("Not computed: run modelyard score."))
    least = min((points for _, points in data.sections), default=0.0)
    bars = [_bar(section, points, least=points == least) for section, points in data.sections]
    rows: list[Markup] = []
    for section, points in data.sections:
        title = f"{section} · {points:g} of 7"
        rows.append(tag("tr", tag("td", title, class_="group", colspan="4")))
        rows += [_line(line) for line in data.lines if line.section == section]
    head = tag(
        "tr", *(tag("th", title, scope="col") for title in ("Test", "Points", "What is tested", "Evidence"))
    )
    whole = tag("table", tag("caption", "All 28 tests"), tag("thead", head), tag("tbody", *rows))
    return _section("score", lead, tag("div", *bars, class_="bars"), tag("div", whole, class_="scroll"))


def _bar(section: str, points: float, *, least: bool) -> Markup:
    label = tag("div", tag("span", section), tag("strong", f"{points:g} of 7"), class_="row")
    fill = tag("div", class_="fill", style=f"width:{min(max(points / 7, 0.0), 1.0):.1%}")
    return tag("div", label, tag("div", fill, class_="track"), class_="bar least" if least else "bar")


def _line(line: ScoreRow) -> Markup:
    mood = "good" if line.points >= 1 else "warn" if line.points > 0 else "plain"
    proof = join([line.evidence, " · " if line.evidence and line.missing else "", line.missing])
    if line.missing and line.command:
        proof = join([proof, " ", tag("code", line.command)])
    cells = (
        tag("td", tag("code", line.test), class_="tight"), tag("td", pill(f"{line.points:g}", mood)),
        tag("td", line.title), tag("td", proof, class_=None if line.points else "muted"),
    )  # fmt: skip
    return tag("tr", *cells)


def _quality(data: ReportData) -> Markup:
    rows = [
        (item.metric, item.of or "all", interval(item), f"{item.n:,}", item.method) for item in data.quality
    ]
    heads = ("Metric", "On", "Value [interval]", "Rows", "Interval by")
    parts = [table("Quality", heads, rows, numbers=(3,)) if rows else empty("No quality was measured.")]
    for place, verdict in enumerate(data.slices):
        plot = interval_plot(1000 + place, "Slices", verdict.measurements[:40], verdict.bound)
        caption = tag("figcaption", tag("span", f"Slices: {verdict.claim}"), outcome(verdict.passed))
        parts.append(
            tag(
                "div", tag("figure", caption, tag("p", verdict.why, class_="note"), plot), class_="plots wide"
            )
        )
    if not data.slices:
        parts.append(empty("No slices were judged."))
    return _section("quality", "Each value with the interval that holds the true one.", *parts)


def _drift(data: ReportData) -> Markup:
    keys = join(
        [
            tag("span", tag("i"), "reference: what the release was trained on", class_="key"),
            tag("span", tag("i", class_="win"), "window: the last live traffic", class_="key"),
        ]
    )
    history = [
        (str(report.look), f"{report.rows:,}", _when(report.since), _when(report.until),
         f"{report.alpha:.2g}", _outcome(report))
        for report in reversed(data.windows[-20:])
    ]  # fmt: skip
    heads = ("Look", "Rows", "From", "Until", "Budget spent", "Outcome")
    windows = table("Windows, newest first", heads, history, numbers=(1, 4)) if history else Markup("")
    figures = drift_figures(data)
    shown = tag("div", *figures, class_="plots") if figures else empty("No window has been profiled yet.")
    return _section("drift", "Live traffic against the release's own reference.", keys, shown, windows)


def _outcome(report: WindowReport) -> Markup:
    if not report.judged:
        return pill("too few rows", "warn")
    return pill(f"{len(report.alarms)} alarms", "bad") if report.alarms else pill("quiet", "good")


def _latency(data: ReportData) -> Markup:
    plot = latency_plot(2000, data.latencies, data.latency_bound)
    if not plot:
        return _section("latency", "How long requests took.", empty("No request was timed."))
    caption = tag("figcaption", f"{len(data.latencies):,} requests")
    figure = tag("figure", caption, plot)
    return _section(
        "latency", "How long requests took, in the server.", tag("div", figure, class_="plots wide")
    )


def _judgements(data: ReportData, key: str) -> Markup:
    verdicts = data.compression if key == "compression" else data.canary
    leads = {
        "compression": "Passes tried, each accepted only when faster or smaller and no worse in quality.",
        "canary": "What the release showed on its first share of traffic.",
    }
    rows = [
        (_named(item.claim), outcome(item.passed),
         "; ".join(interval(one) for one in item.measurements[:3]) or "–", item.why)
        for item in verdicts
    ]  # fmt: skip
    none = empty(f"No {key} verdict.")
    shown = table(_TITLES[key], ("Claim", "Verdict", "Measured [interval]", "Why"), rows) if rows else none
    return _section(key, leads[key], shown)


def _ledger(data: ReportData) -> Markup:
    rows = [
        (str(entry.index), entry.time[:19].replace("T", " "), entry.claim, outcome(entry.passed),
         tag("code", short(entry.subject) if is_digest(entry.subject) else entry.subject), entry.by,
         tag("code", short(entry.hash)))
        for entry in data.entries
    ]  # fmt: skip
    heads = ("#", "Time", "Claim", "Outcome", "Subject", "By", "Hash")
    shown = (
        table("Newest entries first", heads, rows, numbers=(0,)) if rows else empty("The ledger is empty.")
    )
    return _section("ledger", "The end of the chain that all of the above is read from.", shown)
