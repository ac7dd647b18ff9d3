"""The pictures of a report's page in README.md and docs/guides: what Chromium shows of a validation and of a training.

    octoscale demo --out runs/smollm2-135m
    octoscale train gpt-10m --text pydoc --steps 30 --every 5 --out runs/gpt-10m
    python docs/make_screens.py runs/smollm2-135m runs/gpt-10m

    docs/report_map.png        the map of the validation, 1,440 pixels wide
    docs/report_found.png      what was found in it, as a phone of 400 pixels shows it
    docs/report_tensor.png     a gradient of the training, in dark colors, at 900 pixels

The extra `dev` has playwright; Chromium is the system's (apt-get install chromium).
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import octoscale
from octoscale.report.page.write import write_report

DOCS = Path(__file__).resolve().parent

#: Picture -> which of the two runs, width and height of the window, and what the page's address says.
SCREENS = {
    "report_map": (0, 1440, 780, "view=map&source=amax&theme=light"),
    "report_found": (0, 400, 900, "view=found&theme=light"),
    "report_tensor": (1, 900, 900, "view=tensor&role=grad_output&theme=dark&module={module}"),
}


def main(validation: Path, training: Path) -> None:
    """Write the three pictures."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no Chromium: apt-get install chromium")
    with sync_playwright() as started, TemporaryDirectory() as folder:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, (number, width, height, address) in SCREENS.items():
            run = (validation, training)[number]
            written = write_report([run], Path(folder) / f"{name}.html")
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(f"{written.as_uri()}#{address.format(module=last_output(run))}")
            page.wait_for_selector("html[data-ready=yes]", state="attached")
            page.screenshot(path=str(DOCS / f"{name}.png"), full_page=name == "report_tensor")
        browser.close()


def last_output(run: Path) -> str:
    """The module of kind ffn_out in the last layer."""
    rows = octoscale.read_scales(run).filter(kind="ffn_out").sort("layer")
    return "" if rows.is_empty() else str(rows["module"][-1])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
