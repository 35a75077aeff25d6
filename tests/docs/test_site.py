"""The built site: `python -m sphinx -W --keep-going docs docs/_build/html`, then this.

Links and resources are checked in the files; layout, console and the interactive page in a headless Chromium (Debian's `chromium`, driven by
playwright), where there is one.
"""

import json
import shutil
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from npreparam import fuse

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if "_modules" not in path.parts) if SITE.exists() else []
W3 = np.array([0.25, -0.5, 0.125, 0.75, 1.0, -0.25, -0.125, 0.5, -0.75]).reshape(1, 1, 3, 3)
W1 = np.full((1, 1, 1, 1), 0.625)
PHONE, DESK = 390, 1280
OUTSIDE = {"https://github.com/pradyunsg/furo"}  # links that lead out of the site: the theme's own
ROUNDINGS = 12  # on the longest way of a number of live.js: a sum, a root, a quotient, a product, three additions; doubled for both sides
UNIT = 2.0**-53

pytestmark = pytest.mark.skipif(not PAGES, reason="no built site: python -m sphinx -W --keep-going docs docs/_build/html")


class References(HTMLParser):
    """What a page refers to, what it can be referred to by, and images without alternative text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.anchors: set[str] = set()
        self.silent: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if found.get("id"):
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if (tag in ("img", "script") and found.get("src")) or (tag == "link" and found.get("rel") in ("stylesheet", "icon")):
            self.resources.append(found.get("src") or found["href"])
        if tag == "img" and not found.get("alt"):
            self.silent.append(found.get("src", ""))


@cache
def references(page: str | Path) -> References:
    return References((SITE / page).read_text(encoding="utf-8"))


def broken(page: str, targets: list[str]) -> list[str]:
    """Targets inside the site that do not exist, by file or by anchor."""
    missing = []
    for target in targets:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            continue
        path = ((SITE / page).parent / unquote(parts.path)).resolve() if parts.path else SITE / page
        if path.is_dir():
            path /= "index.html"
        if not path.is_file() or (parts.fragment and path.suffix == ".html" and unquote(parts.fragment) not in references(path).anchors):
            missing.append(target)
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    found = references(page)
    assert broken(page, [link for link in found.links if "_modules" not in link]) == []
    assert broken(page, found.resources) == []


def test_a_broken_link_is_found():
    assert broken(PAGES[0], ["no-such-page.html", "#no-such-anchor", "https://elsewhere"]) == ["no-such-page.html", "#no-such-anchor"]


@pytest.mark.parametrize("page", PAGES)
def test_nothing_comes_from_the_network_and_every_image_has_words(page):
    found = references(page)
    assert [resource for resource in found.resources if urlsplit(resource).netloc] == []
    assert found.silent == []


def test_few_links_lead_outside():
    assert {link for page in PAGES for link in references(page).links if urlsplit(link).scheme or urlsplit(link).netloc} == OUTSIDE


def test_signatures_name_their_types():
    assert [page for page in PAGES if "TypeAliasForwardRef" in (SITE / page).read_text(encoding="utf-8")] == []


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright (extra `docs`)")
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("the browser tests need Chromium (Debian's package chromium)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


def visit(browser, page, width, scheme):
    """The opened page and everything that went wrong on it."""
    tab = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    wrong = []
    tab.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("requestfailed", lambda request: wrong.append(request.url))
    tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else wrong.append(request.url))
    tab.goto(f"file://{SITE}/{page}")
    return tab, wrong


@pytest.mark.parametrize(("width", "scheme"), [(PHONE, "light"), (PHONE, "dark"), (DESK, "light"), (DESK, "dark")])
def test_pages_in_a_browser(browser, width, scheme):
    faults = {}
    for page in PAGES:
        tab, wrong = visit(browser, page, width, scheme)
        beyond = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wrong or beyond > 0:
            faults[page] = (wrong, beyond)
        tab.context.close()
    assert faults == {}


CUT = """() => [...document.querySelectorAll(".cell pre, .highlight pre")].filter(box => box.scrollWidth > box.clientWidth)
    .map(box => box.innerText.split("\\n").reduce((longest, line) => line.length > longest.length ? line : longest, ""))"""


def test_no_code_is_cut_at_a_desk(browser):
    """Everything that is shown on the pages fits its box; on the API pages, examples are wrapped."""
    cut = {}
    for page in (page for page in PAGES if not page.startswith("api/")):
        tab, _ = visit(browser, page, DESK, "light")
        if lines := tab.evaluate(CUT):
            cut[page] = lines
        tab.context.close()
    assert cut == {}


def test_the_browser_test_sees_a_wide_element(browser):
    tab, _ = visit(browser, PAGES[0], PHONE, "light")
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<div style=\"width:2000px;height:1px\"></div>')")
    assert tab.evaluate("document.documentElement.scrollWidth - window.innerWidth") > 0
    tab.context.close()


BRANCHES = ("3x3", "1x1", "identity")


def moved(tab, values, log_eps):
    """What the page shows after its sliders were moved, all digits: kernel, bias, and the parameters it was computed from."""
    tab.evaluate("""([values, logEps]) => {
        const set = (key, value) => { const input = document.getElementById(key); input.value = value; input.dispatchEvent(new Event("input")); };
        for (const [key, value] of Object.entries(values)) set(key, value);
        set("eps", logEps);
    }""", [values, log_eps])
    kernel = np.array(json.loads(tab.get_attribute("#fused", "data-values"))).reshape(1, 1, 3, 3)
    shown = {key: float(tab.input_value(f"[id='{key}']")) for key in values}
    return kernel, float(tab.get_attribute("#fused-bias", "data-value")), shown, float(tab.get_attribute("#fused-bias", "data-eps"))


def reference(shown, eps):
    """The library's kernel and bias, and the sums of absolute values that bound rounding errors."""
    bns = [(*(np.array([shown[f"{branch}-{name}"]]) for name in ("gamma", "beta", "mean", "variance")), eps) for branch in BRANCHES]
    kernel, bias = fuse.fuse_repvgg(W3, bns[0], W1, bns[1], bns[2])
    scales = [abs(gamma[0]) / np.sqrt(var[0] + eps) for gamma, _, _, var, eps in bns]
    size = scales[0] * np.abs(W3)
    size[0, 0, 1, 1] += scales[1] * abs(W1[0, 0, 0, 0]) + scales[2]
    return kernel, bias[0], size, sum(abs(bn[1][0]) + scale * abs(bn[2][0]) for bn, scale in zip(bns, scales, strict=True))


def test_the_sliders_show_the_librarys_numbers(browser):
    tab, wrong = visit(browser, "pages/live.html", PHONE, "light")
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {f"{branch}-{name}": float(np.round(rng.uniform(*limits), 2)) for branch in BRANCHES
                  for name, limits in (("gamma", (-2, 2)), ("beta", (-2, 2)), ("mean", (-2, 2)), ("variance", (0.01, 2)))}
        kernel, bias, shown, eps = moved(tab, values, float(np.round(rng.uniform(-8, 0), 1)))
        expected_kernel, expected_bias, size, bias_size = reference(shown, eps)
        assert (np.abs(kernel - expected_kernel) <= ROUNDINGS * UNIT * size).all()
        assert abs(bias - expected_bias) <= ROUNDINGS * UNIT * bias_size
    forgotten = reference(shown, 0.0)[0]  # the planted fault: no eps
    assert (np.abs(kernel - forgotten) > ROUNDINGS * UNIT * size).any()
    assert wrong == []
    tab.context.close()
