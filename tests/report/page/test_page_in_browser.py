"""The page in a real browser. Oracles: the records that it was made of; the errors and requests that it saw."""

import csv
import io
import json
import re
import shutil
import unicodedata
from contextlib import contextmanager
from functools import partial
from itertools import count

import pytest
from stepped_runs import PLAN, rows_of, stepped_run
from written_runs import SUMMARY, frame, row, small_run, write_run

from octoscale.report.page.ranks import Ranks
from octoscale.report.page.server import serving
from octoscale.report.page.write import write_report
from octoscale.runs.folder import RunFolder
from octoscale.runs.parts import write_part
from octoscale.system.lock import exclusive_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
OPTIONS += ["--disable-background-networking", "--disable-component-update"]
VIEWS = ("found", "map", "tensor", "run", "table")
WAIT = 60_000  # milliseconds: a machine may be busy

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pages of a training, of a validation, and of two trainings: name -> address."""
    folder = tmp_path_factory.mktemp("pages")
    train = stepped_run(folder / "amax")
    other = stepped_run(folder / "half", plan={**PLAN, "learning_rate": 2e-5, "scaling": "cscale:1"}, loss=3.3)
    validation = write_run(folder / "validation", small_run(), SUMMARY)
    precise = stepped_run(folder / "bf16", plan={**PLAN, "scaling": "bf16"}, layers=0)
    made = {"train": [train], "validation": [validation], "both": [train, other], "bf16": [precise]}
    runs = {name: [run.path for run in of] for name, of in made.items()}
    return {name: write_report(of, folder / f"{name}.html").as_uri() for name, of in runs.items()}


@pytest.fixture
def open_page(browser):
    """Open an address with a fragment in a window of its own; in the end, nothing was wrong and nobody was asked."""
    contexts, wrong = [], []

    def watch(page):
        page.set_default_timeout(WAIT)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))

        def requested(request):
            if not request.url.startswith(("blob:", "data:", page.allowed)):
                wrong.append(request.url)

        page.on("request", requested)

    def open_(address, fragment="", width=1200, **words):
        context = browser.new_context(viewport={"width": width, "height": 900}, **words)
        contexts.append(context)
        page = context.new_page()
        page.allowed, page.wrong = address, wrong
        watch(page)
        page.goto(f"{address}#{fragment}")
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def state_of(page):
    return dict(pair.split("=") for pair in page.evaluate("location.hash").lstrip("#").split("&") if pair)


def pixels(page, selector="canvas.map"):
    return page.eval_on_selector(selector, "canvas => canvas.toDataURL()")


def cell(page, layer, line):
    """Where the cell of a layer is in the map: `line` counts the lines of the first role."""
    box = page.locator("canvas.map").bounding_box()
    left = min(210, round(box["width"] * 0.36))
    size = min(60, (box["width"] - left - 8) / 2)
    return {"x": left + (layer + 0.5) * size, "y": 24 + 18 * line + 9}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", ["train", "validation", "both", "bf16"])
def test_every_view_opens_without_an_error_and_asks_nobody(files, open_page, name, view):
    page = open_page(files[name], f"view={view}")
    assert page.locator("#views [aria-selected=true]").inner_text().lower() == view
    assert page.locator("main").inner_text().strip()
    if name == "bf16" and view in ("map", "tensor", "table"):
        assert "recorded no scales" in page.locator("main").inner_text()
    else:
        assert page.locator("main canvas, main table, main li").count() > 0


@pytest.mark.parametrize("view", VIEWS)
def test_it_fits_into_400_pixels(files, open_page, view):
    page = open_page(files["both"], f"view={view}", width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_slider_and_the_keys_move_through_the_steps(files, open_page):
    page = open_page(files["train"], "view=map")
    last = pixels(page)
    slider = page.get_by_label("Step", exact=True)
    assert slider.get_attribute("max") == "23"
    slider.fill("0")
    assert state_of(page)["step"] == "0"
    assert "step 0" in page.locator("#of").inner_text()
    assert pixels(page) != last
    page.locator("h1").click()
    page.keyboard.press("ArrowRight")
    assert state_of(page)["step"] == "1"
    page.get_by_label("Play").click()
    playwright.expect(slider).to_have_value("23", timeout=WAIT)
    assert pixels(page) == last


def test_hover_tells_the_numbers_and_a_click_opens_the_tensor(files, open_page):
    page = open_page(files["train"], "view=map&step=9")
    canvas = page.locator("canvas.map")
    canvas.hover(position=cell(page, 1, 1))  # down_proj of layer 1, as weight
    told = page.locator("#tip").inner_text()
    assert "model.layers.1.mlp.down_proj" in told
    assert re.search(r"^scale_bias: 6$", told, re.MULTILINE)  # 8 - 9 // 8 - 1
    assert re.search(r"^amax: 4$", told, re.MULTILINE)
    canvas.click(position=cell(page, 1, 1))
    state = state_of(page)
    assert (state["view"], state["role"], state["step"]) == ("tensor", "weight", "9")
    assert page.locator("h2 .name").inner_text() == "model.layers.1.mlp.down_proj"
    assert page.locator("figure.plot").count() >= 4
    page.go_back()
    assert state_of(page)["view"] == "map"
    assert page.locator("canvas.map").count() == 1


def under_the_pointer(page, canvas, text):
    """The lines of the small window where, on the way down the middle of a figure, one begins with a text."""
    size = canvas.bounding_box()
    for y in range(4, int(size["height"]), 8):
        canvas.hover(position={"x": size["width"] / 2, "y": y})
        lines = page.locator("#tip").inner_text().splitlines()
        if any(line.startswith(text) for line in lines):
            return lines
    return []


@pytest.mark.parametrize(("cells", "about"), [(60_000, ""), (0, "≈ ")])
def test_a_number_that_is_rounded_is_told_as_that_and_others_are_exact(cells, about, open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("octoscale.report.page.scales.EXACT_CELLS", cells)
    run = stepped_run(tmp_path / "run", 9)
    module = "model.layers.0.mlp.down_proj"
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), "view=map")
    where = cell(page, 0, 1)
    page.locator("canvas.map").hover(position=where | {"y": where["y"] + 24 + 36})  # as input
    told = page.locator("#tip").inner_text().splitlines()
    tenth, most = ("10 %", "60 %") if not about else ("9.6 %", "59 %")  # eighths and quarters of an octave
    assert {f"amax: {about}2", f"flushed, share of values: {about}{tenth}", "scale_bias: 7"} <= set(told)
    assert "saturated, share of values: none" in told
    page.goto(page.url.split("#")[0] + f"#view=tensor&role=input&module={module}")
    page.reload()
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    lines = under_the_pointer(page, page.locator("figure.plot .holder canvas").first, "exponent -3:")
    assert f"exponent -3: {about}{most} of the values" in lines
    assert f"zeros: {about}{tenth}" in lines
    amax = page.locator("figure.plot", has_text="amax: largest").locator(".value")
    assert amax.inner_text() == f"{about}2 at step 8"


def test_headroom_is_that_of_the_step_that_comes_nearest_and_of_no_two_steps(open_page, tmp_path):
    """In a bin of two steps, amax 4 under bias 6 and amax 1 under bias 10: the second one saturates, by an octave."""
    run = RunFolder.create(tmp_path / "run", {"plan": PLAN})
    for amax, bias, half in ((4.0, 6, 0), (1.0, 10, 1)):
        steps = range(half, 600, 2)
        write_part(run.scales, frame(*(row for step in steps for row in rows_of(step, amax=amax, scale_bias=bias))))
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), "view=map&quantity=headroom")
    page.locator("canvas.map").hover(position=cell(page, 0, 0))
    (told,) = re.findall("^headroom.*: (.*)$", page.locator("#tip").inner_text(), re.MULTILINE)
    assert told == "-1.19"  # log2(448 / 1024); the largest amax with the smallest bias had 0.807


def test_the_next_layer_of_a_gradient_is_the_next_though_backward_records_it_before(open_page, tmp_path):
    run = RunFolder.create(tmp_path / "run", {"plan": PLAN})
    write_part(run.scales, frame(*rows_of(0)[::-1]))
    module = "view=tensor&module=model.layers.0.mlp.down_proj&role=grad_output"
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), module)
    assert page.get_by_role("button", name="← layer").is_disabled()
    page.get_by_role("button", name="layer →").click()
    assert page.locator("h2 .name").inner_text() == "model.layers.1.mlp.down_proj"


def test_the_map_is_walked_with_the_keyboard(files, open_page):
    page = open_page(files["train"], "view=map")
    page.locator("canvas.map").focus()
    for press in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(press)
    assert page.locator("h2 .name").inner_text() == "model.layers.1.mlp.down_proj"


def test_another_quantity_is_another_picture(files, open_page):
    page = open_page(files["train"], "view=map")
    before = pixels(page)
    page.get_by_label("Quantity").select_option("flushed")
    assert state_of(page)["quantity"] == "flushed"
    assert pixels(page) != before
    page.locator("canvas.map").hover(position=cell(page, 0, 1) | {"y": 24 + 36 + 24 + 27})  # the same as input
    assert "flushed, share of values: 10 %" in page.locator("#tip").inner_text()


def test_a_module_is_found_by_parts_of_its_name(files, open_page):
    page = open_page(files["train"])
    page.keyboard.press("/")
    page.keyboard.type("1 down")
    assert page.locator("#suggested li").all_inner_texts() == ["model.layers.1.mlp.down_proj"]
    page.keyboard.press("Enter")
    assert state_of(page)["view"] == "tensor"
    assert page.locator("h2 .name").inner_text() == "model.layers.1.mlp.down_proj"
    page.locator("#search").fill("nothing of that name")
    assert "no module" in page.locator("#suggested").inner_text()


def test_a_deep_link_shows_what_was_seen(files, open_page):
    page = open_page(
        files["train"], "view=tensor&module=model.layers.0.mlp.down_proj&role=grad_output&step=4&theme=dark"
    )
    assert page.locator("h2 .name").inner_text() == "model.layers.0.mlp.down_proj"
    assert page.get_by_role("button", name="gradients").get_attribute("aria-pressed") == "true"
    assert "e5m2" in page.locator(".head").inner_text()
    assert "step 4 " in page.locator(".slider").inner_text()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.get_by_role("button", name="weights").click()
    assert state_of(page)["role"] == "weight"


@pytest.mark.parametrize(
    "word", ["__proto__", "gone", *(pytest.param(word, marks=pytest.mark.slow) for word in ("constructor", "toString"))]
)
def test_a_link_with_words_that_mean_nothing_here_shows_what_there_is(word, files, open_page):
    for view in (*VIEWS, word):
        given = "&".join(
            f"{name}={word}" for name in ("quantity", "source", "against", "module", "role", "step", "sort")
        )
        page = open_page(files["both"], f"view={view}&{given}")
        assert page.locator("#views [aria-selected=true]").inner_text().lower() == (view if view in VIEWS else "found")
        assert page.locator("main canvas, main table, main li").count() > 0
        page.close()


def test_a_sentence_leads_to_the_tensor_that_it_is_about(files, open_page):
    page = open_page(files["train"])
    item = page.locator(".findings li", has_text="10 % of the values are flushed to zero.").first
    item.get_by_role("link").click()
    assert page.locator("h2 .name").inner_text() == "model.layers.0.mlp.down_proj"
    assert state_of(page)["role"] == "input"


def test_of_many_scalings_the_first_are_drawn_no_two_alike_and_the_rest_is_said(open_page, tmp_path):
    run = write_run(tmp_path / "run", [], SUMMARY)
    for bias in range(20):
        for window in (0, 1):
            run.append_metrics({"scaling": f"cscale:{bias}", "window": window, "loss": 2.5 + bias})
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), "view=run")
    figure = page.locator("figure.plot", has_text="Loss of the window")
    assert figure.locator("figcaption").inner_text() == "Loss of the window; the first 14 of 20 lines"
    marks = figure.locator("canvas.mark").evaluate_all("all => all.map(mark => mark.toDataURL())")
    assert (len(marks), len(set(marks))) == (14, 14)


def test_two_runs_are_compared_and_what_differs_is_marked(files, open_page):
    page = open_page(files["both"], "view=run")
    marked = page.locator("tr.differs").all_inner_texts()
    assert any(text.startswith("learning_rate\t4e-05\t2e-05") for text in marked)
    assert not any(text.startswith("model") for text in marked)
    assert page.locator("figcaption", has_text="Loss above that of").count() == 1
    page.get_by_role("tab", name="Map").click()
    page.get_by_label("Compare with").select_option("half: cscale:1")
    page.locator("canvas.map").hover(position=cell(page, 0, 0))
    assert "difference: 0" in page.locator("#tip").inner_text()
    assert "half: cscale:1" in page.locator("#of").inner_text()


def differences(page, layer=0):
    """What the map says of the differences of the three roles at the step that is shown."""
    found = []
    for role in range(3):
        where = cell(page, layer, 0)
        page.locator("canvas.map").hover(position=where | {"y": where["y"] + role * (2 * 18 + 24)})
        (line,) = re.findall("^difference: (.*)$", page.locator("#tip").inner_text(), re.MULTILINE)
        found.append(line)
    return found


def test_a_step_that_the_other_run_never_had_is_not_compared(open_page, tmp_path):
    long, short = stepped_run(tmp_path / "long", 24), stepped_run(tmp_path / "short", 5)
    page = open_page(write_report([long.path, short.path], tmp_path / "page.html").as_uri(), "view=map&step=4")
    page.get_by_label("Compare with").select_option("short: amax")
    assert differences(page) == ["0"] * 3
    page.get_by_label("Step", exact=True).fill("20")
    assert differences(page) == ["\u2013"] * 3
    page.get_by_label("Run and scaling").select_option("short: amax")
    page.get_by_label("Compare with").select_option("long: amax")
    page.get_by_label("Step", exact=True).fill("4")
    assert differences(page) == ["0"] * 3


def test_bins_of_other_widths_and_steps_are_compared_where_they_meet(open_page, tmp_path):
    """600 steps in bins of two, of which the odd ones were recorded, beside a run that recorded every third."""
    wide, narrow = (RunFolder.create(tmp_path / name, {"plan": PLAN}) for name in ("wide", "narrow"))
    write_part(wide.scales, frame(*(each for step in range(1, 600, 2) for each in rows_of(step, scale_bias=step))))
    write_part(narrow.scales, frame(*(each for step in range(0, 300, 3) for each in rows_of(step, scale_bias=step))))
    fragment = "view=map&source=wide: amax&against=narrow: amax&step={}"
    address = write_report([wide.path, narrow.path], tmp_path / "page.html").as_uri()
    page = open_page(address, fragment.format(8))
    assert differences(page) == ["0"] * 3  # 9 and 9, both in the bin that begins at 8
    page.get_by_label("Step", exact=True).fill("5")  # steps 10 and 11, between 9 and 12
    assert differences(page) == ["+2", "\u2013", "\u2013"]
    page.get_by_label("Step", exact=True).fill("200")  # step 401
    assert differences(page) == ["\u2013"] * 3


def losses_of(path, losses, scaling="amax"):
    """A run that only has losses, of step 1 on; None: not finite."""
    run = RunFolder.create(path, {"plan": {**PLAN, "scaling": scaling}})
    for step, loss in enumerate(losses, 1):
        run.append_metrics({"phase": "train", "scaling": scaling, "step": step, "loss": loss})
    return run.path


def excess(open_page, *runs):
    """What the figure of the excess over the first run says of its end: one text for each other run."""
    page = open_page(write_report(runs, runs[0] / "page.html").as_uri(), "view=run")
    figure = page.locator("figure.plot", has_text="Loss above that of")
    return figure.locator(".value").all_inner_texts()


def test_equal_losses_of_runs_of_any_lengths_are_no_excess(open_page, tmp_path):
    losses = [8 / (1 + step / 50) for step in range(500)]
    base = losses_of(tmp_path / "bf16", losses, "bf16")
    same = losses_of(tmp_path / "same", losses[:125])
    longer = losses_of(tmp_path / "longer", losses + [9.0] * 100)
    assert excess(open_page, base, same, longer) == ["0 % at step 125", "0 % at step 500"]


def test_a_loss_that_is_not_finite_is_left_out_of_the_mean_and_ends_nothing(open_page, tmp_path):
    base = losses_of(tmp_path / "bf16", [2.0] * 50, "bf16")
    other = losses_of(tmp_path / "other", [2.0] * 10 + [None, None] + [2.0] * 37 + [2.4])
    assert excess(open_page, base, other) == ["+10 % at step 50"]  # of the last 2 steps, 2.0 and 2.4


def test_scalings_of_a_validation_are_a_choice(files, open_page):
    page = open_page(files["validation"], "view=map")
    assert page.get_by_label("Scaling", exact=True).input_value() == "amax"
    before = pixels(page)
    page.get_by_label("Scaling", exact=True).select_option("cscale:-2")
    page.get_by_label("Quantity").select_option("flushed")
    assert pixels(page) != before
    canvas = page.locator("canvas.map")
    canvas.hover(position=cell(page, 0, 0))
    assert "flushed, share of values: 60 %" in page.locator("#tip").inner_text()  # a weight of step 0, at the last step


def test_dark_mode_follows_the_system_and_the_button(files, open_page):
    page = open_page(files["train"], "view=map", color_scheme="dark")

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = paper()
    page.locator("#theme").click()
    light = paper()
    assert (dark, light) == ("rgb(20, 23, 26)", "rgb(255, 255, 255)")
    assert state_of(page)["theme"] == "light"
    page.keyboard.press("d")
    assert paper() == dark


def test_the_table_is_sorted_filtered_and_exported(files, open_page):
    page = open_page(files["train"], "view=table")
    assert page.locator("tbody tr").count() == 12
    page.get_by_role("columnheader", name="amax, largest").get_by_role("button").click()
    assert state_of(page)["sort"] == "-amax"
    assert "model.layers.1" in page.locator("tbody tr").first.inner_text()
    page.get_by_label("Role").select_option("grad_output")
    page.get_by_label("Module", exact=True).fill("DOWN")
    assert page.locator("tbody tr").count() == 2
    with page.expect_download() as download:
        page.locator("#export").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    assert download.value.suggested_filename == "scales.csv"
    numbers = {
        "layer": "1",
        "role": "grad_output",
        "bias_low": "5",
        "bias_high": "7",
        "amax_high": "8",
        "records": "24",
    }
    assert rows[0].items() >= numbers.items()
    assert [row["module"] for row in rows] == [f"model.layers.{layer}.mlp.down_proj" for layer in (1, 0)]


def exported(page):
    with page.expect_download() as download:
        page.locator("#export").click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))


def test_a_file_says_what_is_a_share_and_what_a_count_and_holds_no_infinity(open_page, tmp_path):
    run = RunFolder.create(tmp_path / "run", {"plan": PLAN})
    values = {"nan": float("nan"), "inf": float("inf"), "none": 0.0, "some": 2.0}
    rows = [
        row(module=name, phase="train", amax=amax, numel=0 if name == "none" else 100, nonfinite=int(name == "nan"))
        | ({"saturated": 25, "flushed": 10} if name == "some" else {})
        for name, amax in values.items()
    ]
    write_part(run.scales, frame(*rows))
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), "view=table")
    names = ("amax_high", "saturated_share", "flushed_share", "nonfinite_count")
    found = {each["module"]: tuple(each[name] for name in names) for each in exported(page)}
    assert found == {
        "nan": ("not finite", "0", "0", "1"),
        "inf": ("not finite", "0", "0", "0"),
        "none": ("0", "", "", "0"),
        "some": ("2", "0.25", "0.1", "0"),
    }


def test_what_is_not_seen_in_a_name_stands_as_its_escape(open_page, tmp_path):
    """Oracle: what Python takes for printable, as the terminal's one_line does, of all letters that both know."""
    known = [
        chr(code) for code in (*range(0xD800), *range(0xE000, 0x10000), *range(0xE0000, 0xE0100), 0x1D173, 0x1F600)
    ]
    letters = [letter for letter in known if unicodedata.category(letter) != "Cn"]
    run = stepped_run(tmp_path / "run", 2, plan={**PLAN, "text": "".join(letters), "half": "\ud800x"})
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri())

    def escaped(letter):
        return f"\\u{ord(letter):04x}" if ord(letter) < 2**16 else f"\\U{ord(letter):08x}"

    facts = {
        row[0]: row[1]
        for row in page.locator("table.facts tr").evaluate_all(
            "rows => rows.map(row => [...row.children].map(cell => cell.textContent))"
        )
    }
    assert facts["text"] == "".join(each if each.isprintable() else escaped(each) for each in letters)
    assert facts["half"] == "\\ud800x"


HOSTILE = [
    '<img src=x onerror="window.owned=1">',
    "</script><script>window.owned=1</script>",
    "'\"`${window.owned=1}`",
    '=HYPERLINK("http://evil.example")\n\u202e\x1b[2J\u2028end',
    "long." + "x" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_text(name, open_page, tmp_path):
    run = stepped_run(tmp_path / "run", 4, plan={**PLAN, "model": name, "scaling": name[:200]}, module=name)
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri())
    for view in VIEWS:
        page.get_by_role("tab", name=view.capitalize()).click()
        assert page.locator("main img, main script").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    shown = page.locator("tbody .name").first.text_content()
    controls = {"\n": "\\u000a", "\u202e": "\\u202e", "\x1b": "\\u001b", "\u2028": "\\u2028"}
    assert shown == "".join(controls.get(letter, letter) for letter in name)
    page.locator("#search").fill(name[:20].replace("\n", ""))
    with page.expect_download() as download:
        page.locator("#export").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"), newline="")))
    assert rows[0]["module"] == (f"'{name}" if name.startswith("=") else name)
    assert page.evaluate("window.owned") is None


def test_print_leaves_out_what_cannot_be_pressed_on_paper(files, open_page):
    page = open_page(files["train"], "view=map")
    page.emulate_media(media="print")
    assert [page.locator(each).is_visible() for each in ("#views", ".controls", ".slider")] == [False] * 3
    assert page.locator("canvas.map").is_visible()


def test_paper_is_white(files, open_page):
    page = open_page(files["train"], "view=map&theme=dark")
    dark = pixels(page)
    page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert pixels(page) != dark
    page.evaluate("() => { window.dispatchEvent(new Event('afterprint')); }")
    assert pixels(page) == dark


def test_the_keys_are_told(files, open_page):
    page = open_page(files["train"])
    page.keyboard.press("?")
    assert "find a module" in page.locator("dialog").inner_text()
    page.get_by_role("button", name="Close").click()
    playwright.expect(page.locator("dialog")).to_be_hidden(timeout=WAIT)
    page.keyboard.press("5")
    playwright.expect(page.get_by_role("tab", name="Table")).to_have_attribute("aria-selected", "true", timeout=WAIT)
    assert state_of(page)["view"] == "table"


def test_all_is_drawn_as_it_was_recorded(files, open_page):
    """The typed arrays in the browser are those that were packed: the map's own numbers, of every tensor and step."""
    page = open_page(files["train"], "view=map")
    for step in (0, 7, 8, 23):
        page.get_by_label("Step", exact=True).fill(str(step))
        for layer in (0, 1):
            page.locator("canvas.map").hover(position=cell(page, layer, 0))
            told = page.locator("#tip").inner_text()
            assert f"scale_bias: {8 - step // 8 - layer}\n" in told
            assert f"amax: {2 ** (step // 8 + layer)}\n" in told


@contextmanager
def watched(run, open_page):
    with serving(run.path, port=0) as url:
        page = open_page(url, "view=map")
        yield page
        page.close()  # before the server: it would tell that nobody answers


def test_watch_shows_a_new_step_and_says_when_the_run_is_done(open_page, tmp_path):
    run = stepped_run(tmp_path / "run", 4, finished=False)
    with watched(run, open_page) as page:
        page.wait_for_selector("#live.stopped")
        assert "step 3" in page.locator("#of").inner_text()
        write_part(run.scales, frame(*rows_of(4)))
        playwright.expect(page.locator("#of")).to_contain_text("step 4", timeout=WAIT)
        assert page.get_by_label("Step", exact=True).get_attribute("max") == "4"
        assert state_of(page) == {"view": "map"}  # it follows the newest step, and nothing else has changed
        summary = {**PLAN, "validation_loss": {"before": 5.0, "after": 2.0}}
        run.summary.write_text(json.dumps(summary))
        page.wait_for_selector("#live.finished")


def test_a_run_without_scales_is_live_at_its_last_loss_and_before_any_just_live(open_page, tmp_path):
    path = tmp_path / "bf16"
    with exclusive_run(path):
        run = stepped_run(path, 0, plan={**PLAN, "scaling": "bf16"}, finished=False)
        with watched(run, open_page) as page:
            page.wait_for_selector("#live.running")
            assert page.locator("#live").inner_text() == "live"
            for step in (1, 2):
                run.append_metrics({"phase": "train", "scaling": "bf16", "step": step, "loss": 3.0})
            playwright.expect(page.locator("#live")).to_have_text("live, step 2", timeout=WAIT)


@contextmanager
def growing(open_page, tmp_path, fragment):
    """A page whose run gets another step at each call: (page, grow)."""
    run = stepped_run(tmp_path / "run", 8, finished=False)
    steps = count(8)
    with exclusive_run(run.path), serving(run.path, port=0) as url:
        page = open_page(url, fragment)
        page.wait_for_selector("#live.running")

        def grow():
            step = next(steps)
            write_part(run.scales, frame(*rows_of(step)))
            playwright.expect(page.locator("#live")).to_have_text(f"live, step {step}", timeout=WAIT)

        yield page, grow
        page.close()


def test_news_take_no_letter_and_no_caret_from_whoever_types(open_page, tmp_path):
    with growing(open_page, tmp_path, "view=table") as (page, grow):
        page.get_by_label("Module", exact=True).click()
        for letters in ("mlp.", "d1"):  # d is a shortcut, and so is 1
            page.keyboard.type(letters)
            grow()
        page.keyboard.press("Home")
        grow()
        page.keyboard.type("5.")
        assert state_of(page) == {"view": "table", "find": "5.mlp.d1"}
        assert page.get_by_label("Module", exact=True).input_value() == "5.mlp.d1"
        page.locator("#search").click()
        page.keyboard.type("down")
        grow()
        page.keyboard.type("_proj")
        assert page.locator("#search").input_value() == "down_proj"
        assert page.locator("#suggested li").count() == 2


def test_news_leave_the_focus_and_the_cell_where_they_are(open_page, tmp_path):
    with growing(open_page, tmp_path, "view=map") as (page, grow):
        page.locator("canvas.map").focus()
        for press in ("ArrowRight", "ArrowRight", "ArrowDown"):
            page.keyboard.press(press)
            grow()
        page.keyboard.press("Enter")
        assert page.locator("h2 .name").inner_text() == "model.layers.1.mlp.down_proj"
        for name in ("activations", "← layer", "layer →"):
            page.get_by_role("button", name=name).focus()
            grow()
            assert page.evaluate("document.activeElement.textContent") == name or name == "layer →"
        page.locator("#theme").focus()
        grow()
        assert page.evaluate("document.activeElement.id") == "theme"


def test_news_do_not_stop_what_plays(open_page, tmp_path):
    with growing(open_page, tmp_path, "view=map&step=0") as (page, grow):
        page.get_by_label("Play").click()
        grow()
        grow()
        playwright.expect(page.locator("#of")).to_contain_text("step 9", timeout=WAIT)
        page.get_by_label("Play").wait_for()  # it has stopped at the end
        assert state_of(page) == {"view": "map"}


def test_news_wait_for_an_open_list_and_no_longer(open_page, tmp_path):
    with growing(open_page, tmp_path, "view=map") as (page, grow):
        page.get_by_label("Quantity").click()
        page.evaluate("() => { document.querySelector('main select').isThis = true; }")
        other = pytest.raises(AssertionError)
        with other, pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "WAIT", 3_000)
            grow()
        assert page.evaluate("document.querySelector('main select').isThis") is True
        page.keyboard.press("Escape")
        grow()
        assert page.evaluate("document.activeElement.ariaLabel") == "Quantity"
        page.locator("h1").click(button="right")
        grow()


def test_watch_begins_before_the_run_does(open_page, tmp_path):
    path = tmp_path / "later"
    with serving(path, port=0) as url:
        page = open_page(url)
        assert "holds no run yet" in page.locator("main").inner_text()
        stepped_run(path, 2)
        page.wait_for_selector(".findings li")
        page.wait_for_selector("#live.finished")
        page.close()


def test_a_run_that_ended_is_shown_as_what_it_was_when_nobody_answers_any_more(open_page, tmp_path):
    run = stepped_run(tmp_path / "run", 4, finished=False)
    with exclusive_run(run.path), serving(run.path, port=0, to_the_end=True) as url:
        going_on = open_page(url)
        going_on.wait_for_selector("#live.running")
    gone = [text for text in going_on.wrong if "ERR_CONNECTION_REFUSED" not in text]
    going_on.wait_for_selector("#live.gone")
    assert going_on.locator("#live").inner_text() == "no answer: the server has ended"
    with serving(run.path, port=0) as url:
        ended = open_page(url)
        ended.wait_for_selector("#live.stopped")
    ended.wait_for_event("requestfailed")
    assert ended.locator("#live").inner_text() == "stopped"
    assert gone == []
    going_on.wrong.clear()


def test_news_that_could_not_be_shown_are_asked_for_again(open_page, tmp_path):
    run = stepped_run(tmp_path / "run", 4, finished=False)
    with watched(run, open_page) as page:
        broken = []

        def without_runs(route):
            broken.append(route.request.url)
            route.fulfill(json=route.fetch().json() | {"runs": [{}]})

        page.route("**/data.json", without_runs, times=1)
        write_part(run.scales, frame(*rows_of(4)))
        playwright.expect(page.locator("#of")).to_contain_text("step 4", timeout=WAIT)
        assert len(broken) == 1


def ranked_run(path, ranks=(0, 1, 2), steps=8, micro_batches=2):
    """A run of several ranks: scale_bias is 4 on rank 0, 5 on rank 1, and on rank 2 in the mean 4 + step / 2."""
    run = RunFolder.create(path, {"plan": PLAN})
    for rank in ranks:
        write_part(run.scales, rank_rows(rank, range(steps), micro_batches), rank)
    return run


def rank_rows(rank, steps, micro_batches=2):
    rows = [
        each | {"scale_bias": 4 + (rank if rank < 2 else (step + half) // 2)}
        for step in steps
        for half in range(micro_batches)
        for each in rows_of(step, rank=rank)
    ]
    return frame(*rows)


def test_how_far_ranks_are_apart_is_a_quantity_of_runs_of_several(files, open_page, tmp_path):
    run = ranked_run(tmp_path / "ranks")
    alone = ranked_run(tmp_path / "alone", (0,))
    address = write_report([run.path, alone.path], tmp_path / "page.html").as_uri()
    page = open_page(address, "view=map&quantity=rank_spread&step=7")
    assert page.get_by_label("Quantity").input_value() == "rank_spread"
    assert "spread of scale_bias over ranks (largest less smallest mean of a rank), ranks: amax, step 7" in (
        page.locator("#of").inner_text()
    )
    assert "spread of scale_bias over ranks" in page.locator(".legends").inner_text()
    for step, told in ((7, "3.5"), (0, "1"), (1, "1"), (4, "2"), (5, "2.5")):
        page.get_by_label("Step", exact=True).fill(str(step))
        page.locator("canvas.map").hover(position=cell(page, 1, 1))
        assert f"spread of scale_bias over ranks: {told}" in page.locator("#tip").inner_text().splitlines()
    page.get_by_label("Compare with").select_option("alone: amax")
    page.locator("canvas.map").hover(position=cell(page, 1, 1))
    assert "difference: \u2013" in page.locator("#tip").inner_text().splitlines()
    page.get_by_label("Compare with").select_option("")
    page.get_by_label("Run and scaling").select_option("alone: amax")
    assert page.get_by_label("Quantity").input_value() == "scale_bias"
    assert page.get_by_label("Quantity").locator("option[value=rank_spread]").count() == 0
    page.locator("canvas.map").hover(position=cell(page, 1, 1))
    assert "over ranks" not in page.locator("#tip").inner_text()


def test_the_table_says_how_far_ranks_are_apart_over_all_steps(files, open_page, tmp_path):
    run = ranked_run(tmp_path / "ranks")
    alone = ranked_run(tmp_path / "alone", (0,))
    page = open_page(
        write_report([run.path, alone.path], tmp_path / "page.html").as_uri(), "view=table&sort=-rank_spread"
    )
    assert page.locator("thead").inner_text().count("spread over ranks") == 1
    found = {row["scaling"]: row["rank_spread"] for row in exported(page)}
    assert found == {"ranks: amax": "1.75", "alone: amax": ""}  # 4, 5, and the mean of 4, 4.5, ... 7.5
    assert "rank_spread" not in exported(open_page(files["train"], "view=table"))[0]


def test_in_bins_wider_than_those_of_the_page_the_steps_are_told(open_page, tmp_path, monkeypatch):
    monkeypatch.setattr("octoscale.report.page.scales.Ranks", partial(Ranks, most_rows=12 * 3 * 4))
    run = ranked_run(tmp_path / "ranks")
    page = open_page(write_report([run.path], tmp_path / "page.html").as_uri(), "view=map&quantity=rank_spread&step=5")
    assert "of the 2 steps around it), amax, step 5" in page.locator("#of").inner_text()
    page.locator("canvas.map").hover(position=cell(page, 0, 0))
    assert "spread of scale_bias over ranks: 2.25" in page.locator("#tip").inner_text().splitlines()


def test_watch_offers_the_spread_when_a_second_rank_comes(open_page, tmp_path):
    run = ranked_run(tmp_path / "run", (0,))
    with watched(run, open_page) as page:
        assert page.get_by_label("Quantity").locator("option[value=rank_spread]").count() == 0
        write_part(run.scales, rank_rows(1, range(8)), 1)
        page.wait_for_selector("option[value=rank_spread]", state="attached")
        write_part(run.scales, rank_rows(2, range(9)), 2)
        playwright.expect(page.locator("#of")).to_contain_text("step 8", timeout=WAIT)
        page.get_by_label("Quantity").select_option("rank_spread")
        page.get_by_label("Step", exact=True).fill("7")
        live = pixels(page)
        page.locator("canvas.map").hover(position=cell(page, 1, 1))
        told = page.locator("#tip").inner_text()
    assert "spread of scale_bias over ranks: 3.5" in told.splitlines()
    at_once = open_page(
        write_report([run.path], tmp_path / "page.html").as_uri(), "view=map&quantity=rank_spread&step=7"
    )
    assert pixels(at_once) == live


COMPARED = {"amax": (7, 2.0), "cscale:-1": (-1, 4.0), "cscale:weight=3,input=1": (1, 8.0), "delayed": (5, 16.0)}


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four scalings of one run, each with another scale_bias and amax; the third saturates, and has no down_proj."""
    folder = tmp_path_factory.mktemp("four")
    run = RunFolder.create(folder / "run", {"plan": PLAN})
    for scaling, (bias, amax) in COMPARED.items():
        rows = [
            each | {"scale_bias": bias, "amax": amax, "saturated": 25 * scaling.startswith("cscale:w")}
            for step in range(12)
            for micro in range(2)
            for each in rows_of(step, scaling=scaling)
            if not (scaling.startswith("cscale:w") and each["module"].endswith("down_proj"))
        ]
        write_part(run.scales, frame(*rows))
    return write_report([run.path], folder / "page.html").as_uri()


def legend_of(page, title):
    """Of a figure's lines: label -> value, and the picture of each line's mark."""
    figure = page.locator("figure.plot", has_text=title)
    entries = figure.locator(".entry")
    marks = figure.locator("canvas.mark").evaluate_all("all => all.map(mark => mark.toDataURL())")
    values = figure.locator(".value").all_inner_texts()
    labels = [text.removesuffix(value) for text, value in zip(entries.all_text_contents(), values, strict=True)]
    return dict(zip(labels, values, strict=True)), marks


def test_any_number_of_scalings_are_lines_of_one_figure_each_with_its_own_look(four, open_page):
    page = open_page(four, "view=tensor&source=amax&module=model.layers.0.self_attn.q_proj&role=input")
    others = list(COMPARED)[1:]
    for number, label in enumerate(others):
        page.get_by_label("Compare with").select_option(label)
        values, marks = legend_of(page, "scale_bias: smallest")
        assert list(values) == ["amax", *others[: number + 1]]
        assert len(set(marks)) == len(marks) == number + 2
    assert page.get_by_label("Compare with").count() == 0  # there is no other one left
    assert values == {scaling: f"{bias} at step 11" for scaling, (bias, _) in COMPARED.items()}
    values, of_amax = legend_of(page, "amax: largest")
    assert values == {scaling: f"{amax:g} at step 11" for scaling, (_, amax) in COMPARED.items()}
    values, of_shares = legend_of(page, "Share of the values: saturated")
    assert values == {scaling: "none" if scaling != others[1] else "25 % at step 11" for scaling in COMPARED}
    assert marks == of_amax == of_shares  # the same look in each figure
    chips = page.get_by_role("group", name="Compared").locator("canvas.mark")
    assert chips.evaluate_all("all => all.map(mark => mark.toDataURL())") == marks[1:]
    assert page.locator("figcaption", has_text="Exponents at").inner_text().endswith(", amax")


def test_a_link_keeps_all_that_is_compared_and_a_click_leaves_one_out(four, open_page):
    page = open_page(four, "view=tensor&source=delayed&module=model.layers.1.self_attn.q_proj&role=weight")
    for label in list(COMPARED)[:3]:
        page.get_by_label("Compare with").select_option(label)
    link = page.evaluate("location.hash")
    assert link.count("against=") == 3
    again = open_page(four, link.lstrip("#"))
    assert legend_of(again, "scale_bias: smallest") == legend_of(page, "scale_bias: smallest")
    again.get_by_role("button", name="Leave out cscale:-1").click()
    values, _ = legend_of(again, "scale_bias: smallest")
    assert list(values) == ["delayed", "amax", "cscale:weight=3,input=1"]
    again.go_back()
    assert list(legend_of(again, "scale_bias: smallest")[0]) == ["delayed", *list(COMPARED)[:3]]
    again.get_by_role("tab", name="Map").click()
    assert again.get_by_label("Compare with").input_value() == "amax"  # a map has one difference


def test_what_is_compared_and_has_no_such_tensor_is_named(four, open_page):
    module = "view=tensor&source=amax&module=model.layers.0.mlp.down_proj&role=input"
    page = open_page(four, f"{module}&against=cscale:weight%3D3,input%3D1&against=delayed&against=gone&against=delayed")
    assert "cscale:weight=3,input=1 has no such tensor." in page.locator("main").inner_text()
    values, _ = legend_of(page, "scale_bias: smallest")
    assert list(values) == ["amax", "delayed"]


def test_many_compared_fit_into_400_pixels(four, open_page):
    against = "&".join(f"against={label.replace('=', '%3D')}" for label in list(COMPARED)[1:])
    page = open_page(four, f"view=tensor&source=amax&{against}", width=400)
    assert page.get_by_role("group", name="Compared").get_by_role("button").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
