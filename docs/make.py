"""Make again what README.md shows of a demo run: its table, between two marks, and two figures.

python docs/make.py RUN
"""

import json
import sys
from pathlib import Path

from PIL import Image

from octoscale.report.terminal import against, flatten, perplexity_text

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- table: ./dev docs -->", "<!-- end of table -->"
FIGURES = ("perplexity", "scale_bias")
WIDTH = 1200


def main(run: Path) -> None:
    """Put the table of a run into README.md and its figures under docs/."""
    summary = json.loads((run / "summary.json").read_text())
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{table(summary)}\n{END}{after}")
    for name in FIGURES:
        shrink(run / "figures" / f"{name}.png", ROOT / "docs" / f"{name}.png")


def table(summary: dict) -> str:
    """The scores as a Markdown table, constant scales side by side where they are close to the others."""
    scores, seconds = flatten(summary["perplexity"]), flatten(summary["seconds"])
    base = scores["bf16"]
    lines = ["| scaling | perplexity | against bf16 | seconds |", "|---|--:|--:|--:|"]
    for name, value in scores.items():
        lines.append(f"| {name} | {perplexity_text(value)} | {against(value, base)} | {seconds[name]:.1f} |")
    lines += ["", f"{summary['cscale_range']['text']}.", "", f"Backend: {summary['backend']} ({summary['reason']})."]
    return "\n".join(lines)


def shrink(source: Path, target: Path) -> None:
    """A copy that is `WIDTH` pixels wide, with few colours: small enough for the repository."""
    with Image.open(source) as image:
        height = round(image.height * WIDTH / image.width)
        small = image.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.quantize(64).save(target, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
