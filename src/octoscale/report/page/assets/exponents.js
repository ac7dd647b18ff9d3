// The exponents of one tensor: over steps as a waterfall against the window of the format, and of one step as bars.

const FALL = { left: 64, right: 10, top: 8, bottom: 40, height: 260 };

/** Both figures; returns what draws them anew for a step. of: whose they are, where others are compared with it. */
function drawExponents(grid, source, tensor, of) {
  const { scales } = source,
    places = scales.columns[tensor.at];
  const fallBox = el("figure", { class: "plot" }),
    barBox = el("figure", { class: "plot" });
  grid.append(fallBox, barBox);
  if (!places.length) {
    fallBox.append(
      el("figcaption", {}, "Exponents"),
      el("p", { class: "quiet" }, "No histogram was recorded of this tensor: --every says how often one is."),
    );
    barBox.remove();
    return () => {};
  }
  const fall = el("canvas", { role: "img" }),
    bars = el("canvas", { role: "img" });
  if (places.length < 2) fallBox.remove();
  const whose = of ? `, ${printable(of)}` : "";
  const title = el("figcaption", {}),
    scaled = state.scaled === "yes" && !tensor.scales; // several scales move different values by different amounts
  const other = el(
    "button",
    { type: "button", onclick: () => set({ scaled: scaled ? "" : "yes" }) },
    scaled ? "before scaling" : "after scaling",
  );
  const scale = colorScale("share", [1e-6, 1]);
  fallBox.append(
    el(
      "figcaption",
      {},
      `Exponents over ${scales.unit}s, ${scaled ? "after" : "before"} scaling${whose} `,
      tensor.scales ? null : other,
    ),
    el("div", { class: "holder" }, fall),
    legend(scale, percent, "share of the values", windowWords(tensor)),
  );
  barBox.append(title, el("div", { class: "holder" }, bars));
  const view = new Exponents(source, tensor, places, scaled);
  fall.addEventListener("click", (event) =>
    set({ step: String(view.stepAt(event.clientX - fall.getBoundingClientRect().left)) }, true),
  );
  fall.addEventListener("pointermove", (event) => showTip(event, view.told(event, fall)));
  fall.addEventListener("pointerleave", hideTip);
  return (step) => {
    const place = scales.columnAt(tensor, step),
      width = Math.max(240, barBox.clientWidth);
    if (places.length > 1) view.fall(fall, width, scale, place);
    view.bars(bars, width, place);
    title.textContent = `Exponents at ${scales.unit} ${count(scales.waterfall.step[place])}: ${tensor.format}, scale_bias ${bandOf(tensor, ...scales.scalesAt(tensor, place))}${whose}`;
  };
}

/** What the lines of a window are. */
const windowWords = ({ scales }) =>
  scales
    ? "lines: what the format holds under the highest scale (below) and the lowest (above); dashed: below it the lowest flushes"
    : "lines: what the format holds, dashed: its smallest normal value";

class Exponents {
  constructor(source, tensor, places, scaled) {
    Object.assign(this, {
      source,
      tensor,
      places,
      scaled,
      scales: source.scales,
      format: source.scales.formats[tensor.format],
    });
    const { first, bias } = this.scales.waterfall;
    let low = Infinity,
      high = -Infinity;
    for (const place of places) {
      const shares = this.scales.sharesAt(place),
        shift = scaled ? bias[place] : 0,
        rest = scaled ? 0 : this.scales.scalesAt(tensor, place)[1];
      shares.forEach((share, i) => {
        if (share > 1e-7) {
          low = Math.min(low, first + i + shift);
          high = Math.max(high, first + i + shift);
        }
      });
      low = Math.min(low, this.format.subnormal - 1 - rest);
      high = Math.max(high, Math.ceil(Math.log2(this.format.max)) - rest);
    }
    this.low = low - 1;
    this.high = high + 2;
    this.steps = places.map((place) => this.scales.waterfall.step[place]);
  }

  /** Where the format's window stands in the figure of a column: flushed, normal, saturated. Of several scales, their
   * windows together: the highest holds the smallest values, the lowest the largest; in the middle, what the lowest
   * flushes ends, for which values are normal is not known. */
  window(place, scaled = this.scaled) {
    const [low, high] = scaled ? [0, 0] : this.scales.scalesAt(this.tensor, place),
      flushed = this.format.subnormal - 1,
      middle = this.tensor.scales ? flushed : this.format.normal;
    return [flushed - high, middle - low, Math.log2(this.format.max) - low];
  }

  /** Columns stand where their steps are; the last one is as wide as the one before. */
  #edges(width) {
    const { steps } = this,
      room = width - FALL.left - FALL.right;
    const end = steps.length > 1 ? 2 * steps.at(-1) - steps.at(-2) : steps[0] + 1;
    const x = (step) => FALL.left + (room * (step - steps[0])) / (end - steps[0]);
    return [...steps.map(x), x(end)];
  }

  #y = (exponent) =>
    FALL.top + ((this.high - exponent) / (this.high - this.low)) * (FALL.height - FALL.top - FALL.bottom);

  fall(canvas, width, scale, chosen) {
    const context = prepare(canvas, width, FALL.height),
      edges = (this.edges = this.#edges(width));
    context.fillStyle = color("--cell");
    context.fillRect(edges[0], FALL.top, edges.at(-1) - edges[0], this.#y(this.low) - FALL.top);
    const { first, bias } = this.scales.waterfall;
    this.places.forEach((place, at) => {
      const shift = this.scaled ? bias[place] : 0;
      this.scales.sharesAt(place).forEach((share, i) => {
        const exponent = first + i + shift;
        if (!(share > 1e-7) || exponent < this.low) return;
        context.fillStyle = scale.of(share);
        context.fillRect(
          edges[at],
          this.#y(exponent + 1),
          edges[at + 1] - edges[at] + 0.3,
          this.#y(exponent) - this.#y(exponent + 1) + 0.3,
        );
      });
    });
    this.#windowLines(context, edges);
    this.#axes(context, width, edges);
    const at = this.places.indexOf(chosen);
    context.strokeStyle = color("--ink");
    context.strokeRect(edges[at], FALL.top, Math.max(1, edges[at + 1] - edges[at]), this.#y(this.low) - FALL.top);
    canvas.setAttribute(
      "aria-label",
      `Exponents of ${this.places.length} steps against the window of ${this.tensor.format}`,
    );
  }

  /** The edges of the window over the steps, drawn on a light seam so that they are seen on any color. */
  #windowLines(context, edges) {
    for (const [line, [stroke, dashes]] of [
      [color("--paper"), []],
      [color("--edge"), null],
    ].entries()) {
      [
        [0, []],
        [1, [3, 3]],
        [2, []],
      ].forEach(([which, pattern]) => {
        context.beginPath();
        this.places.forEach((place, at) => {
          const y = this.#y(this.window(place)[which]);
          context.lineTo(edges[at], y);
          context.lineTo(edges[at + 1], y);
        });
        context.strokeStyle = stroke;
        context.lineWidth = line ? 1.6 : 3.5;
        context.setLineDash(dashes ?? pattern);
        context.stroke();
      });
    }
    context.setLineDash([]);
    context.lineWidth = 1;
  }

  #axes(context, width, edges) {
    context.fillStyle = color("--quiet");
    context.textAlign = "right";
    for (const tick of niceTicks(this.low + 1, this.high - 1, 7, true))
      context.fillText(String(tick), FALL.left - 6, this.#y(tick));
    context.textAlign = "center";
    const most = Math.max(2, Math.floor(width / 90)),
      every = Math.ceil(this.steps.length / most);
    this.steps.forEach((step, at) => {
      if (at % every === 0)
        context.fillText(count(step), (edges[at] + edges[at + 1]) / 2, FALL.height - FALL.bottom + 10);
    });
    context.fillText(this.scales.unit, (edges[0] + edges.at(-1)) / 2, FALL.height - 10);
    upright(context, `exponent, log2|x${this.scaled ? " · 2^scale_bias" : ""}|`, FALL.height);
  }

  stepAt(x) {
    const at = this.edges.findIndex((edge, i) => x >= edge && x < this.edges[i + 1]);
    return this.steps[Math.max(0, at)];
  }

  told(event, canvas) {
    const box = canvas.getBoundingClientRect(),
      step = this.stepAt(event.clientX - box.left),
      place = this.scales.columnAt(this.tensor, step);
    const share = (FALL.height - FALL.top - FALL.bottom) / (this.high - this.low);
    const exponent = Math.floor(this.high - (event.clientY - box.top - FALL.top) / share);
    const { first, bias, zeros, exact } = this.scales.waterfall,
      say = roughly(percent, exact),
      i = exponent - first - (this.scaled ? bias[place] : 0);
    return [
      `${this.scales.unit} ${count(step)}`,
      `exponent ${exponent}: ${say(this.scales.sharesAt(place)[i] ?? 0)} of the values`,
      `scale_bias ${bandOf(this.tensor, ...this.scales.scalesAt(this.tensor, place))}`,
      `zeros: ${say(zeros[place])}`,
    ];
  }

  /** One step: bars over exponents before scaling, and the regions of the format behind them. */
  bars(canvas, width, place) {
    const context = prepare(canvas, width, FALL.height),
      { first } = this.scales.waterfall,
      shares = this.scales.sharesAt(place);
    const [flushed, normal, saturated] = this.window(place, false);
    const used = Array.from(shares, (share, i) => (share > 1e-9 ? first + i : null)).filter((each) => each !== null);
    const named = 60, // pixels: the names of what is lost
      rest = Math.max(100, width - FALL.left - FALL.right - 2 * named),
      room = Math.max(6, Math.ceil((named * (saturated - flushed)) / rest));
    const low = Math.min(flushed - room, Math.max(used[0] ?? 0, flushed - 14)),
      high = Math.max(saturated + room, (used.at(-1) ?? 0) + 2);
    const x = (exponent) => FALL.left + ((exponent - low) / (high - low)) * (width - FALL.left - FALL.right);
    const bottom = Math.floor(Math.log10(Math.min(...Array.from(shares).filter((share) => share > 1e-9), 0.1))),
      top = FALL.top + 44;
    const y = (share) =>
      FALL.height - FALL.bottom - ((Math.log10(share) - bottom) / -bottom) * (FALL.height - FALL.bottom - top);
    regions(
      context,
      [
        [low, flushed, "flushed"],
        [flushed, normal, this.tensor.scales ? "by scale" : "sub- normal"],
        [normal, saturated, this.tensor.scales ? "held" : "normal"],
        [saturated, high, "saturated"],
      ],
      x,
      this.#lost(place),
    );
    context.fillStyle = lineColor(1);
    shares.forEach((share, i) => {
      if (share > 1e-9 && first + i >= low)
        context.fillRect(
          x(first + i) + 0.5,
          y(share),
          x(first + i + 1) - x(first + i) - 1,
          FALL.height - FALL.bottom - y(share),
        );
    });
    context.fillStyle = color("--quiet");
    context.textAlign = "right";
    const every = Math.ceil(-bottom / 6);
    for (let power = 0; power >= bottom; power -= every)
      context.fillText(percent(10 ** power), FALL.left - 6, y(10 ** power));
    context.textAlign = "center";
    for (const tick of niceTicks(low + 1, high - 1, width / 60, true))
      context.fillText(String(tick), x(tick), FALL.height - FALL.bottom + 10);
    context.fillText("exponent of the value, log2|x|", (FALL.left + width) / 2, FALL.height - 10);
    canvas.setAttribute("aria-label", `Histogram of exponents of ${this.tensor.module.slice(0, 200)}`);
  }

  #lost(place) {
    const step = this.scales.waterfall.step[place],
      cell = this.scales.place(this.tensor, this.scales.binOf(step));
    if (cell < 0) return {};
    const { cells, waterfall } = this.scales,
      say = roughly(percent, cells.exact),
      subnormal = roughly(percent, waterfall.exact);
    return {
      flushed: say(cells.flushed[cell]),
      saturated: say(cells.saturated[cell]),
      ...(this.tensor.scales ? {} : { "sub- normal": subnormal(subnormalShare(this.scales, this.tensor, place)) }),
    };
  }
}

/** Names of the format's regions above the bars, and the share of the values in them, in words. */
function regions(context, parts, x, lost) {
  const linesOf = (name, width) =>
    name === "sub- normal" && width < 70 ? ["sub-", "normal"] : [name.replace("- ", "")];
  const fits = ([low, high, name]) =>
    linesOf(name, x(high) - x(low)).every((text) => context.measureText(text).width <= x(high) - x(low) - 2);
  if (!parts.every(fits)) context.font = `10px ${color("--sans")}`;
  for (const [low, high, name] of parts) {
    const left = x(low),
      width = x(high) - left;
    context.fillStyle = color(name === "normal" || name === "held" ? "--paper" : "--region");
    context.fillRect(left, FALL.top, width, FALL.height - FALL.bottom - FALL.top);
    if (name === "flushed" || name === "saturated")
      hatch(context, left, FALL.top, width, FALL.height - FALL.bottom - FALL.top);
    context.fillStyle = color("--ink");
    context.textAlign = "center";
    const share = lost[name] === undefined ? [] : [lost[name]];
    if (fits([low, high, name]))
      [...linesOf(name, width), ...share].forEach((text, line) => {
        if (context.measureText(text).width <= width + 1)
          context.fillText(text, left + width / 2, FALL.top + 8 + 14 * line);
      });
  }
  context.font = `12px ${color("--sans")}`;
  context.strokeStyle = color("--edge");
  for (const [low] of parts.slice(1)) {
    context.beginPath();
    context.moveTo(x(low), FALL.top);
    context.lineTo(x(low), FALL.height - FALL.bottom);
    context.stroke();
  }
}

/** The label of a vertical axis, from below to above at the left edge. */
function upright(context, text, height) {
  context.save();
  context.translate(10, height / 2 - 10);
  context.rotate(-Math.PI / 2);
  context.textAlign = "center";
  context.fillText(text, 0, 0);
  context.restore();
}
