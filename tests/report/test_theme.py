from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure

from rivage.report import theme

# What is seen of a linear RGB colour (Machado, Oliveira and Fernandes, 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def _linear(color: str) -> np.ndarray:
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _contrast(one: str, two: str) -> float:
    low, high = sorted(float(_linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, two))
    return (high + 0.05) / (low + 0.05)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_everything_is_legible(colors: dict[str, str]) -> None:
    for text in ("ink", "muted", "good", "bad", "weak", "accent"):
        assert _contrast(colors[text], colors["paper"]) >= 4.5
    for slot in range(theme.NUM_SERIES):
        assert _contrast(colors[f"series-{slot}"], colors["paper"]) >= 3


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colors", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_the_first_five_methods_and_local_differ_for_everyone(colors: dict[str, str], vision: str) -> None:
    seen = [_lab(VISION[vision] @ _linear(colors[name])) for name in ("ink", *(f"series-{k}" for k in range(5)))]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 12


def test_themes_define_the_same_variables() -> None:
    assert theme.LIGHT.keys() == theme.DARK.keys()
    assert theme.theme_css().count("--series-7:") == 2


def test_a_method_looks_the_same_in_every_run_and_unlike_the_others() -> None:
    kinds = [("local", "local"), ("a", "fedavg"), ("b", "fedprox"), ("a", "fedavg")]
    kinds += [(f"m{k}", "fedavg") for k in range(20)]
    looks = theme.looks(kinds)
    assert looks["local"].variable == "ink"
    assert (looks["a"].variable, looks["b"].variable) == ("series-0", "series-1")
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks), "dots have no dashes"
    assert len({(look.color, look.hatch) for look in looks.values()}) == len(looks), "nor have areas"


def _fill(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([0.123456, 1.0], [0.0, 1.0], color="#0a0001", marker="o")
    axes.set_title('<b> & "$x^2$" #0a0001 0.123456', color=theme.INK)


def test_svg_is_fit_for_a_page() -> None:
    svg = theme.to_svg(_fill, size=(4, 3), name="r1-x", label='a "label" <b>')
    assert svg.startswith('<svg role="img" aria-label="a &quot;label&quot; &lt;b&gt;"')
    assert svg.endswith("</svg>")
    assert "http" not in svg
    assert "<style" not in svg
    assert "&lt;b&gt; &amp;" in svg
    assert "0.123456</text>" in svg, "text is not shortened as coordinates are"
    assert "var(--series-1)" in svg
    ids = re.findall(r' id="([^"]+)"', svg)
    used = re.findall(r'(?:url\(#|href="#)([^")]+)', svg)
    assert ids
    assert all(each.startswith("r1-x-") for each in ids)
    assert set(used) <= set(ids)
    assert not re.findall(r' d="[^"]*\.\d{3}', svg)


def test_svg_is_deterministic_and_leaves_matplotlib_alone() -> None:
    before = dict(rcParams)
    first = theme.to_svg(_fill, size=(4, 3), name="x", label="")
    with rc_context({"font.size": 30.0, "svg.fonttype": "path", "axes.grid": False}):
        assert theme.to_svg(_fill, size=(4, 3), name="x", label="") == first
    assert dict(rcParams) == before
