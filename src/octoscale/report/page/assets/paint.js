// Colors and canvases. Sequential colors are viridis, differences go from blue over grey to orange, kinds have the colors
// of Okabe and Ito: all told apart by colour-blind readers, and in grey print by their lightness.

const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const DIVERGING = ["#0b4f8a", "#3f88c5", "#a9cbe6", "#e8e8e8", "#f3c6a5", "#dd7d3b", "#a84300"];
const LINES = {
  light: ["#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9"],
  dark: ["#ffffff", "#56b4e9", "#ff8c42", "#2fd6a3", "#e39ac6", "#f0c419", "#7fd0ff"],
};
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 3], [12, 3]];

const lineColor = (at) => LINES[isDark() ? "dark" : "light"][at % 7];
const dash = (at) => DASHES[(at + Math.floor(at / 7)) % 7]; // of 49 lines, no two have both the same

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** 256 colors between some stops. */
function ramp(stops) {
  return Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1),
      low = Math.min(Math.floor(at), stops.length - 2);
    const [a, b] = [channels(stops[low]), channels(stops[low + 1])];
    return `rgb(${a.map((value, c) => Math.round(value + (b[c] - value) * (at - low))).join(" ")})`;
  });
}
const RAMP = ramp(VIRIDIS),
  BACKWARDS = [...RAMP].reverse(),
  DIFFERENCES = ramp(DIVERGING);

/** From a value to its color, and what a legend needs. range: lowest and highest value that occur. */
function colorScale(look, [low, high]) {
  if (look === "share" || look === "log") {
    const colors = look === "share" && !isDark() ? BACKWARDS : RAMP;
    const bottom = Math.floor(Math.log10(low > 0 ? low : 1e-6)),
      top = Math.max(Math.ceil(Math.log10(high > 0 ? high : 1)), bottom + 1);
    const place = (value) => (Math.log10(value) - bottom) / (top - bottom);
    const ticks = Array.from({ length: top - bottom + 1 }, (_, i) => 10 ** (bottom + i));
    return { colors, place, ticks, of: (value) => (value > 0 ? pick(colors, place(value)) : null) };
  }
  const span = high > low ? high - low : 1;
  const colors = look === "difference" ? DIFFERENCES : RAMP;
  const place = (value) => (high > low ? (value - low) / span : 0.5);
  return { colors, place, ticks: niceTicks(low, high, 6), of: (value) => pick(colors, place(value)) };
}

const pick = (colors, place) => colors[Math.max(0, Math.min(255, Math.round(255 * place)))];

/** Round numbers from low to high. */
function niceTicks(low, high, most, whole = false) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most,
    power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step)
    ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

/** Give a canvas its size in CSS pixels, sharp on any screen; returns its context, cleared. */
function prepare(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `12px ${color("--sans")}`;
  context.textBaseline = "middle";
  return context;
}

/** A text, its middle left out where it is wider than there is room. */
function fitted(context, text, room) {
  let shown = text.length > 400 ? `${text.slice(0, 200)}…${text.slice(-200)}` : text;
  for (let keep = shown.length; context.measureText(shown).width > room && keep > 4;) {
    keep -= Math.max(2, Math.floor((keep * (1 - room / context.measureText(shown).width)) / 2));
    keep = Math.max(4, keep);
    shown = `${text.slice(0, Math.ceil(keep / 3))}…${text.slice(text.length - Math.floor((2 * keep) / 3))}`;
  }
  return shown;
}

/** A bar of the scale's colors with its ticks; none: what a cell without color means. */
function legend(scale, show, label, none) {
  const canvas = el("canvas", { class: "bar", "aria-hidden": "true" });
  const context = prepare(canvas, 180, 12);
  for (let x = 0; x < 180; x++) {
    context.fillStyle = pick(scale.colors, x / 179);
    context.fillRect(x, 0, 1, 12);
  }
  const at = scale.ticks
    .map((tick) => [scale.place(tick), show(tick)])
    .filter(([place]) => place >= -0.01 && place <= 1.01);
  const every = Math.ceil(at.length / 4);
  const ticks = el(
    "div",
    { class: "ticks" },
    at
      .filter((_, i) => i % every === 0)
      .map(([place, text]) => {
        const tick = el("span", {}, text);
        tick.style.left = `${(100 * place).toFixed(1)}%`;
        return tick;
      }),
  );
  return el(
    "div",
    { class: "legend" },
    el("span", {}, label),
    el("div", { class: "scale" }, canvas, ticks),
    none ? el("span", { class: "quiet" }, none) : null,
  );
}

/** Cells without a number, and such without a record, look apart from all colors. */
function hatch(context, x, y, width, height) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = color("--grid");
  context.beginPath();
  for (let at = -height; at < width; at += 4) {
    context.moveTo(x + at, y + height);
    context.lineTo(x + at + height, y);
  }
  context.stroke();
  context.restore();
}
