// The view "Map": layers by modules and roles at one bin of steps, a slider over the bins, a choice of quantity.

const ROW = 18,
  HEADING = 24,
  FOOT = 34;

function mapView(root, page) {
  const source = page.source();
  if (!source) return nothingRecorded(root);
  const map = new ModuleMap(source, page.against()[0]);
  const controls = el("div", { class: "controls" }, ...sourceChoices(page), quantityChoice(source));
  const canvas = el("canvas", { tabindex: 0, role: "img", class: "map" });
  const slider = stepSlider(source);
  const legendBox = el("div", {});
  root.append(
    controls,
    slider.box,
    el("p", { class: "quiet", id: "of" }),
    el("div", { class: "holder" }, canvas),
    legendBox,
  );
  const draw = () => {
    map.take(root.clientWidth);
    map.draw(canvas);
    slider.show(map.bin);
    legendBox.replaceChildren(map.legend());
    root.querySelector("#of").textContent = map.words();
  };
  listen(canvas, map, draw);
  draw();
  const doing = () => ({ isPlaying: slider.isPlaying(), cursor: map.cursor });
  const goOn = (before) => {
    map.cursor = before && map.like(before.cursor);
    draw();
    slider.goOn(before?.isPlaying);
  };
  return { update: draw, resize: draw, step: slider.by, play: slider.play, doing, goOn };
}

/** What is drawn: lines of modules, columns of layers, and the value of each tensor at the step. */
class ModuleMap {
  constructor(source, against) {
    Object.assign(this, { source, against });
    this.lines = linesOf(source.tensors);
    const layers = source.tensors.map((tensor) => tensor.layer).filter((layer) => layer !== null);
    this.layers = layers.length ? Math.max(...layers) + 1 : 0;
    this.hasLoose = layers.length < source.tensors.length;
    this.ranges = new Map();
    this.cursor = null;
  }

  /** Take over the state: step and quantity; and the width there is. */
  take(width) {
    const { scales } = this.source;
    this.name = quantitiesOf(scales).some(([name]) => name === state.quantity) ? state.quantity : "scale_bias";
    this.quantity = QUANTITIES[this.name];
    this.bin = state.step === "" ? scales.bins.length - 1 : scales.binOf(Number(state.step));
    this.step = scales.bins[this.bin];
    this.colors = new Map(
      this.#parts().map((part) => [
        part,
        colorScale(this.against ? "difference" : this.quantity.look, this.range(part)),
      ]),
    );
    this.width = Math.max(280, width);
    this.left = Math.min(210, Math.round(this.width * 0.36));
    const columns = this.layers + (this.hasLoose ? 1 : 0);
    this.cell = Math.min(60, (this.width - this.left - 8) / Math.max(1, columns));
    let y = 0,
      role = "";
    for (const line of this.lines) {
      if (line.role !== role) y += HEADING;
      role = line.role;
      line.y = y;
      y += ROW;
    }
    this.height = y + FOOT;
  }

  /** The value of a tensor at the step; with a comparison, less that of the other source. NaN: there is none. */
  value(tensor, bin = this.bin) {
    const { bins, cells } = this.source.scales,
      steps = [bins[bin], bins[bin] + cells.width - 1];
    const own = valueIn(this.source, tensor, this.quantity, ...steps);
    if (!this.against) return own;
    const other = this.against.byName.get(key(tensor.module, tensor.role));
    if (!other) return NaN;
    const theirs = valueIn(this.against, other, this.quantity, ...steps);
    return this.quantity.look === "log" ? Math.log2(own / theirs) : own - theirs;
  }

  /** What has colors of its own: each role, whose values differ by orders of magnitude; shares have the same for all. */
  #parts() {
    return this.quantity.look === "share" ? [""] : [...new Set(this.lines.map((line) => line.role))];
  }

  /** The lowest and highest value of a role over all steps, so that colors stay while the slider moves. */
  range(role) {
    const name = `${this.name} ${role}`;
    if (!this.ranges.has(name))
      this.ranges.set(name, this.#extremes(this.source.tensors.filter((tensor) => !role || tensor.role === role)));
    return this.ranges.get(name);
  }

  #extremes(tensors) {
    let low = Infinity,
      high = -Infinity;
    const { bins } = this.source.scales,
      stride = Math.max(1, Math.ceil((bins.length * tensors.length) / 200000));
    for (const tensor of tensors) {
      for (let bin = bins.length - 1; bin >= 0; bin -= stride) {
        const value = this.value(tensor, bin);
        if (!Number.isFinite(value) || (value === 0 && this.quantity.look !== "linear" && !this.against)) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
    }
    if (!(low <= high)) return [0, 0];
    const most = Math.max(Math.abs(low), Math.abs(high));
    return this.against ? [-most || -1, most || 1] : [low, high];
  }

  x(tensor) {
    return this.left + this.cell * (tensor.layer === null ? 0 : tensor.layer + (this.hasLoose ? 1 : 0));
  }

  draw(canvas) {
    const context = prepare(canvas, this.width, this.height);
    let role = "";
    for (const line of this.lines) {
      if (line.role !== role) this.#heading(context, line);
      role = line.role;
      context.fillStyle = color("--ink");
      context.textAlign = "right";
      context.fillText(fitted(context, printable(line.label), this.left - 22), this.left - 16, line.y + ROW / 2);
      context.fillStyle = lineColor(1 + KINDS.indexOf(line.kind));
      context.fillRect(this.left - 10, line.y + 2, 4, ROW - 4);
      for (const tensor of line.tensors) this.#cell(context, tensor, line);
    }
    this.#axis(context);
    canvas.setAttribute(
      "aria-label",
      `${this.quantity.label} of ${this.source.tensors.length} tensors, ${this.source.scales.stepsOf(this.bin)}; arrow keys move from cell to cell, Enter opens a tensor`,
    );
  }

  #heading(context, line) {
    context.fillStyle = color("--ink");
    context.textAlign = "left";
    context.font = `600 12px ${color("--sans")}`;
    const [{ format, granularity, scales }] = line.tensors;
    const own = scales ? `, a scale for each ${GROUPS[granularity][0]}` : "";
    const text = `${ROLE_LABELS[line.role] ?? line.role}, ${format}${own}`;
    const fits = this.width - context.measureText(text).width - 2;
    context.fillText(text, Math.max(0, Math.min(this.left, fits)), line.y - HEADING / 2 + 1);
    context.font = `12px ${color("--sans")}`;
  }

  #cell(context, tensor, line) {
    const value = this.value(tensor),
      x = this.x(tensor),
      size = [Math.max(1, this.cell - 1), ROW - 1];
    const paint = Number.isNaN(value)
      ? null
      : Number.isFinite(value)
        ? (this.colors.get(tensor.role) ?? this.colors.get("")).of(value)
        : color("--fault");
    if (Number.isNaN(value)) hatch(context, x, line.y, ...size);
    context.fillStyle = paint ?? color("--cell");
    if (!Number.isNaN(value)) context.fillRect(x, line.y, ...size);
    if (this.cursor === tensor) {
      context.strokeStyle = color("--ink");
      context.lineWidth = 2;
      context.strokeRect(x - 1, line.y - 1, size[0] + 2, size[1] + 2);
      context.lineWidth = 1;
    }
  }

  #axis(context) {
    const y = this.height - FOOT;
    context.fillStyle = color("--quiet");
    context.textAlign = "center";
    const first = this.left + (this.hasLoose ? this.cell : 0);
    for (const layer of niceTicks(0, this.layers - 1, Math.max(2, (this.layers * this.cell) / 40), true)) {
      context.fillText(String(layer), first + (layer + 0.5) * this.cell, y + 9);
    }
    if (this.hasLoose) context.fillText("–", this.left + this.cell / 2, y + 9);
    context.textAlign = "left";
    const words = this.layers ? (this.hasLoose ? "layer (–: in no layer)" : "layer") : "modules in no layer";
    context.fillText(words, this.left, y + 25);
  }

  at(x, y) {
    const line = this.lines.find((each) => y >= each.y && y < each.y + ROW);
    return line?.tensors.find((tensor) => x >= this.x(tensor) && x < this.x(tensor) + this.cell) ?? null;
  }

  /** The tensor beside the cursor in a direction. */
  move(right, down) {
    if (!this.cursor) return (this.cursor = this.lines[0].tensors[0]);
    let at = this.lines.findIndex((line) => line.tensors.includes(this.cursor));
    at = Math.max(0, Math.min(this.lines.length - 1, at + down));
    const { tensors } = this.lines[at];
    const wanted = (this.cursor.layer ?? -1) + right;
    this.cursor = tensors.reduce((best, each) =>
      Math.abs((each.layer ?? -1) - wanted) < Math.abs((best.layer ?? -1) - wanted) ? each : best,
    );
    return this.cursor;
  }

  like(tensor) {
    return tensor ? (this.source.byName.get(key(tensor.module, tensor.role)) ?? null) : null;
  }

  legend() {
    const { look, label, show } = this.quantity;
    const lacks = this.source.scales.hasSeveral && this.quantity.lacks ? `no record, or ${this.quantity.lacks}` : "no record";
    const none = this.against
      ? "hatched: not in both"
      : look === "share"
        ? `blank: none; hatched: ${lacks}`
        : `hatched: ${lacks}`;
    const difference = this.against
      ? `${look === "log" ? "octaves" : "difference"} to ${printable(this.against.label)}`
      : "";
    const bars = [...this.colors].map(([role, scale]) =>
      legend(scale, this.against ? this.#signed() : show, ROLE_LABELS[role] ?? role),
    );
    return el(
      "div",
      { class: "legends" },
      el("span", {}, label, difference ? `, ${difference}` : ""),
      bars,
      el("span", { class: "quiet" }, none),
      this.#kinds(),
    );
  }

  /** Which color beside a line means which kind of layer. */
  #kinds() {
    const kinds = KINDS.filter((kind) => this.lines.some((line) => line.kind === kind));
    return el(
      "span",
      { class: "kinds" },
      kinds.map((kind) => {
        const swatch = el("span", { class: "swatch" });
        swatch.style.background = lineColor(1 + KINDS.indexOf(kind));
        return el("span", {}, swatch, KIND_LABELS[kind]);
      }),
    );
  }

  #signed() {
    return this.quantity.look === "share" ? signedPercent : signed;
  }

  words() {
    const { scales } = this.source;
    const wider = this.quantity.needsRanks && scales.ranks.width > scales.cells.width;
    const more = wider ? `, of the ${count(scales.ranks.width)} ${scales.unit}s around it` : "";
    const meant = (scales.hasSeveral && this.quantity.ofSeveral) || this.quantity.of;
    const of = meant ? ` (${meant}${more})` : "";
    return `${this.quantity.label}${of}, ${printable(this.source.label)}${this.against ? ` against ${printable(this.against.label)}` : ""}, ${scales.stepsOf(this.bin)}`;
  }

  /** What the small window says of a tensor. */
  told(tensor) {
    const { scales } = this.source,
      place = scales.place(tensor, this.bin);
    const head = [
      printable(tensor.module).slice(0, 200),
      `${ROLE_LABELS[tensor.role] ?? tensor.role}, ${tensor.format}, ${KIND_LABELS[tensor.kind] ?? tensor.kind}`,
    ];
    if (place < 0) return [...head, `no record at ${scales.stepsOf(this.bin)}`];
    const lines = quantitiesOf(scales)
      .filter(([, each]) => !each.lacks || Number.isFinite(each.at(scales, tensor, place, this.step)) || !scales.hasSeveral)
      .map(([name, each]) => {
        const value = each.at(scales, tensor, place, this.step);
        if (name === "scale_bias" && tensor.scales)
          return `${each.label}: ${bandOf(tensor, value, scales.highest(tensor, place))}`;
        return `${each.label}: ${roughly(each.show, isExact(scales, each))(value)}`;
      });
    const areExact = [this.source, this.against].every((each) => !each || isExact(each.scales, this.quantity));
    const difference = this.against
      ? [`difference: ${roughly(this.#signed(), areExact)(this.value(tensor))}`]
      : [];
    return [...head, ...difference, ...lines];
  }
}
