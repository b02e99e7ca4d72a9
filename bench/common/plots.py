# SPDX-License-Identifier: Apache-2.0
"""The plots of bench/report: SVG texts that take their colours and fonts from the page.

Colours are placeholders while matplotlib draws and become CSS variables afterwards, so one plot
serves a light and a dark page. Text stays text. Bars begin at zero; whiskers are the lowest and
highest of the repetitions; every line and bar is labelled where it is.
"""

import io
import math
import re

import matplotlib

matplotlib.use("svg")
# pylint: disable=wrong-import-position
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

INK, FAINT, LINES, PAPER = "#000001", "#000002", "#000003", "#000004"
NAMES = ("direct", "postern-proxy", "postern-queue", "postern-queue-relaxed", "postfix", "exim",
         "opensmtpd", "nginx")
HUES = {name: f"#00ff{number:02x}" for number, name in enumerate(NAMES, 1)}
MARKS = dict(zip(NAMES, "oosDv^P*"))
PIXELS = 1.35  # of the page for a point of the figure
WIDTH = 5.4  # inches: narrow enough that text stays readable on a telephone

STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "postern", "font.size": 9.5, "axes.edgecolor": FAINT,
    "axes.labelcolor": INK, "xtick.color": FAINT, "ytick.color": FAINT, "text.color": INK,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "axes.spines.top": False,
    "axes.spines.right": False, "grid.color": LINES, "grid.linewidth": 0.7, "lines.linewidth": 1.8,
    "lines.markersize": 5, "axes.axisbelow": True,
}

count = 0  # of figures so far, for names that are the page's own


def svg(figure, what):
    """The figure as the text of one svg element; what it shows is said for who does not see it."""
    global count  # pylint: disable=global-statement
    count += 1
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    pyplot.close(figure)
    text = out.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="f{count}-', text)
    text = re.sub(r'href="#', f'href="#f{count}-', text)
    text = re.sub(r"url\(#", f"url(#f{count}-", text)
    for hue, variable in ((INK, "ink"), (FAINT, "faint"), (LINES, "lines"), (PAPER, "paper"),
                          *((hue, "c-" + name) for name, hue in HUES.items())):
        text = text.replace(hue, f"var(--{variable})")
    text = re.sub(r"font: ([^;\"']*?)'[^;\"]*", r"font: \1inherit", text)
    text = re.sub(r"(font(?:-family)?: [0-9.a-z ]*(?:px|pt) )[^;\"]*", r"\1var(--font)", text)
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    # The same size of text in all of them, however much each was cut.
    width = float(re.search(r'viewBox="0 0 ([0-9.]+)', head)[1]) * PIXELS
    return f'{head} style="max-width:{width:.0f}px" role="img" aria-label="{what}">{rest.rstrip()}'


def start(height):
    with matplotlib.rc_context(STYLE):
        return pyplot.subplots(figsize=(WIDTH, height))


def short(value):
    """A number as a person writes it: three digits."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def bars(rows, axis, what, form=short):
    """Rows are (group, name, label, spread); horizontal, groups apart, with what each group is."""
    groups = list(dict.fromkeys(row[0] for row in rows))
    place, places, heads = 0.0, [], []
    for group in groups:
        if group:
            heads.append((place, group))
            place += 0.85
        for row in rows:
            if row[0] == group:
                places.append((place, row))
                place += 1
        place += 0.25
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(WIDTH, 0.6 + 0.26 * place))
        high = max(row[3]["max"] for _, row in places) or 1
        for y, (_, name, _, spread) in places:
            axes.barh(y, spread["median"], height=0.72, color=HUES.get(name, HUES["direct"]))
            axes.plot([spread["min"], spread["max"]], [y, y], color=INK, linewidth=1.1, marker="|",
                      markersize=5)
            axes.text(spread["max"] + high * 0.02, y, form(spread["median"]), va="center")
        for y, text in heads:
            axes.text(0, y, text, va="center", color=FAINT, style="italic", fontsize=8.5)
        axes.set_yticks([y for y, _ in places], [row[2] for _, row in places])
        axes.set_ylim(place - 0.4, -0.7)
        axes.set_xlim(0, high * 1.16)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.grid(axis="x")
        axes.set_xlabel(axis)
        return svg(figure, what)


def spaced(places, gap):
    """The same places, moved apart so that labels do not meet; in their order."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for _ in range(200):
        is_settled = True
        for low, high in zip(order, order[1:]):
            short_of = gap - (moved[high] - moved[low])
            if short_of > 1e-6:
                moved[low] -= short_of / 2
                moved[high] += short_of / 2
                is_settled = False
        if is_settled:
            break
    return moved


def label_ends(axes, ends):
    """Ends are (x, y, text, colour): labels to the right of the plot, apart from one another."""
    transform = axes.transData
    height = axes.get_window_extent().height
    there = [(transform.transform((x, y))[1] - axes.get_window_extent().y0) / height
             for x, y, _, _ in ends]
    for (x, y, text, hue), wanted, place in zip(ends, there, spaced(there, 0.07)):
        right = axes.transAxes.inverted().transform(transform.transform((x, y)))[0]
        axes.annotate(text, xy=(right, wanted), xytext=(1.03, place), xycoords="axes fraction",
                      textcoords="axes fraction", va="center", color=hue, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": hue, "linewidth": 0.6,
                                  "shrinkA": 0, "shrinkB": 2})


def lines(series, x_label, y_label, what, log_x=False, log_y=False, x_ticks=None, height=3.1):
    """Series are (name, label, [(x, median, min, max)]); x_ticks are (place, text)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(WIDTH * 0.78, height))
        ends = []
        for name, label, points in series:
            hue = HUES.get(name, name)
            xs, ys = [p[0] for p in points], [p[1] for p in points]
            axes.fill_between(xs, [p[2] for p in points], [p[3] for p in points], color=hue,
                              alpha=0.15, linewidth=0)
            axes.plot(xs, ys, color=hue, marker=MARKS.get(name, "o") if len(xs) < 12 else None)
            ends.append((xs[-1], ys[-1], label, hue))
        if log_x:
            axes.set_xscale("log")
        if log_y:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, None)
            axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        if x_ticks:
            axes.xaxis.set_major_locator(FixedLocator([place for place, _ in x_ticks]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticklabels([text for _, text in x_ticks])
        axes.grid(True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        figure.canvas.draw()
        label_ends(axes, ends)
        return svg(figure, what)


PERCENTILES = ((50, "50 %"), (90, "90 %"), (99, "99 %"), (99.9, "99.9 %"), (99.99, "99.99 %"))


def percentile_place(percentile):
    return -math.log10(1 - percentile / 100)


def percentiles(series, what):
    """Series are (name, label, [[percentile, us]...]): how long the slow ones wait."""
    drawn, reach = [], 0.0
    for name, label, curve in series:
        points = [(percentile_place(p), us / 1000, us / 1000, us / 1000) for p, us in curve
                  if p < 100 and us > 0]
        if points:
            drawn.append((name, label, points))
            reach = max(reach, points[-1][0])
    ticks = [(percentile_place(p), text) for p, text in PERCENTILES
             if percentile_place(p) <= reach + 1e-6]
    return lines(drawn, "share of the messages that were answered within", "latency, ms", what,
                 log_y=True, x_ticks=ticks)
