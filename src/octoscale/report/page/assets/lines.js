// Lines over steps, by uPlot; bands, a legend that tells the values under the pointer, and one pointer for all figures.

const POINTER = uPlot.sync("steps");
let plots = [];

/** Let go of all figures: their view is left. */
function forgetPlots() {
  plots.forEach((plot) => plot.destroy());
  plots = [];
}

/**
 * A figure. lines: [{label, x, y, low, high, look, none}], each with steps of its own; look: which color and dash; none:
 * what the legend says where there is nothing to draw.
 * log: base of a logarithmic axis. unit: what x counts. show: how a value is told; say: another way for the legend.
 */
function lineFigure(root, { title, lines, unit = "step", log = 0, show = short, say = show, height = 190, whole = false }) {
  const box = el("figure", { class: "plot" }, el("figcaption", {}, title));
  const holder = el("div", { class: "canvas" }),
    told = el("div", { class: "told" });
  box.append(holder, told);
  root.append(box);
  const drawn = lines.filter((line) => line.x.length > 0);
  if (!drawn.length) {
    holder.append(el("p", { class: "quiet" }, "Nothing was recorded."));
    return;
  }
  const { data, series, bands, origin } = joined(drawn, log);
  const entries = legendEntries(told, drawn);
  const options = {
    width: Math.max(200, holder.clientWidth || 600),
    height,
    series,
    bands,
    legend: { show: false },
    cursor: { sync: { key: POINTER.key, scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 6 } },
    scales: { x: { time: false, range: spanOf(data[0]) }, y: log ? { distr: 3, log, range: powersAround(log) } : { range: rangeOf(whole) } },
    axes: axes(unit, log, show, whole),
    hooks: { setCursor: [(plot) => tell(plot, entries, drawn, origin, say, unit)] },
  };
  plots.push(new uPlot(options, data, holder));
  tell(plots.at(-1), entries, drawn, origin, say, unit);
}

/** One column of all steps, and for each line its values there. Bands lie below all lines: a band's edges are lines that
 * are not seen, but thin where many bands overlap, which then are paler. */
function joined(lines, log) {
  const xs = [...new Set(lines.flatMap((line) => Array.from(line.x)))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, i) => [x, i]));
  const data = [xs],
    series = [{}],
    bands = [],
    origin = [null];
  const usable = (value) => Number.isFinite(value) && (!log || value > 0);
  const column = (line, values) => {
    const whole = new Array(xs.length).fill(undefined);
    line.x.forEach((x, i) => {
      whole[at.get(x)] = usable(values[i]) ? values[i] : null;
    });
    return whole;
  };
  const strokeOf = (line, number) => lineColor(line.look ?? number);
  const areMany = lines.filter((line) => line.low).length > 2;
  lines.forEach((line, number) => {
    if (!line.low) return;
    const stroke = strokeOf(line, number);
    data.push(column(line, line.high), column(line, line.low));
    const edge = { stroke: areMany ? `${stroke}70` : "transparent", width: 1, points: { show: false }, spanGaps: false };
    series.push(edge, edge);
    origin.push(null, null);
    bands.push({ series: [data.length - 2, data.length - 1], fill: `${stroke}${areMany ? "14" : "30"}` });
  });
  lines.forEach((line, number) => {
    const look = line.look ?? number,
      stroke = strokeOf(line, number);
    data.push(column(line, line.y));
    const sparse = line.x.length < 40;
    series.push({
      stroke,
      width: 1.5,
      dash: dash(look),
      points: { show: sparse, size: 5, fill: stroke },
      spanGaps: false,
    });
    origin.push(number);
  });
  return { data, series, bands, origin };
}

function axes(unit, log, show, whole) {
  const shared = {
    stroke: color("--quiet"),
    font: `11px ${color("--sans")}`,
    labelFont: `11px ${color("--sans")}`,
    grid: { stroke: color("--grid"), width: 1 },
    ticks: { stroke: color("--grid"), width: 1 },
  };
  const values = (_, ticks) => ticks.map((tick) => (tick === null ? "" : show(tick)));
  return [
    {
      ...shared,
      label: unit,
      labelSize: 18,
      size: 26,
      incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6, 1e7],
      values: (_, ticks) => ticks.map(count),
    },
    {
      ...shared,
      size: 64,
      values,
      space: 26,
      ...(log ? { splits: powers(log), filter: (_, ticks) => ticks } : {}),
      ...(whole && !log ? { incrs: [1, 2, 5, 10, 20, 50, 100] } : {}),
    },
  ];
}

/** Powers of the base between the ends of a logarithmic axis, few enough to be read. */
const powers = (base) => (plot, axis, low, high) => {
  const [first, last] = [low, high].map((end) => Math.round(Math.log(end) / Math.log(base)));
  const every = Math.max(1, Math.ceil((last - first) / 6));
  return Array.from({ length: Math.floor((last - first) / every) + 1 }, (_, i) => base ** (first + i * every));
};

/** A logarithmic axis begins and ends at a power of its base. */
const powersAround = (base) => (_, low, high) => {
  if (low === null || high === null) return [1, base];
  const logarithm = (value) => Math.log(value) / Math.log(base);
  const bottom = Math.floor(logarithm(low) + 1e-9);
  return [base ** bottom, base ** Math.max(bottom + 1, Math.ceil(logarithm(high) - 1e-9))];
};

/** All steps; a single one gets room on both sides. */
function spanOf(xs) {
  const [first, last] = [xs[0], xs.at(-1)];
  return first === last ? [first - 1, last + 1] : [first, last];
}

const rangeOf = (whole) => (_, low, high) => {
  if (low === null || high === null) return [0, 1];
  const room = whole ? 1 : high > low ? (high - low) * 0.08 : Math.abs(high) / 2 || 1;
  return [low - room, high + room];
};

function legendEntries(told, lines) {
  return lines.map((line, number) => {
    const look = line.look ?? number;
    const value = el("span", { class: "value" });
    told.append(el("span", { class: "entry" }, lineMark(look), lines.length > 1 ? printable(line.label) : null, value));
    return value;
  });
}

/** A piece of a line, in its color and dash. */
function lineMark(look) {
  const mark = el("canvas", { class: "mark", "aria-hidden": "true" }),
    context = prepare(mark, 26, 10);
  context.strokeStyle = lineColor(look);
  context.lineWidth = 2;
  context.setLineDash(dash(look));
  context.beginPath();
  context.moveTo(0, 5);
  context.lineTo(26, 5);
  context.stroke();
  return mark;
}

/** Write the values under the pointer into the legend; the last ones where there is no pointer. */
function tell(plot, entries, lines, origin, show, unit) {
  const at = plot.cursor.idx;
  origin.forEach((number, column) => {
    if (number === null) return;
    const values = plot.data[column],
      line = lines[number];
    let place = at ?? values.length - 1;
    while (place > 0 && (values[place] === undefined || values[place] === null)) place--;
    const value = values[place];
    if (value === undefined || value === null) {
      entries[number].textContent = line.none ?? "–";
      return;
    }
    const i = line.low ? Array.from(line.x).indexOf(plot.data[0][place]) : -1;
    const band = i >= 0 && line.low[i] !== line.high[i] ? ` (${show(line.low[i])} to ${show(line.high[i])})` : "";
    entries[number].textContent = `${show(value)}${band} at ${unit} ${count(plot.data[0][place])}`;
  });
}

/** Fit all figures to the width that they have now. */
function resizePlots() {
  plots.forEach((plot) =>
    plot.setSize({ width: Math.max(200, plot.root.parentElement.clientWidth), height: plot.height }),
  );
}
