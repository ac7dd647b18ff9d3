// Numbers as people read them, and the quantities that the page shows of a tensor.

const count = (value) => Number(value).toLocaleString("en-US");

/** Three significant digits, without an exponent where that is short. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return "not finite";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0*e\+?/, "e");
  return String(Number(value.toPrecision(size >= 1000 ? 5 : 3)));
}

function percent(share) {
  if (share === 0) return "none";
  return Number.isFinite(share) ? `${short(100 * share)} %` : "–";
}

const signed = (value) => (value > 0 ? "+" : "") + short(value);
const signedPercent = (share) => `${signed(100 * share)} %`;

/** How a number is told that the page may hold rounded: with two digits then, and a sign that says so. */
const roughly = (show, isExact) => (value) =>
  isExact || !Number.isFinite(value) || value === 0 ? show(value) : `≈ ${show(Number(value.toPrecision(2)))}`;

/** Whether a quantity is in the page as it was recorded; those without `from` always are, and what there is none of. */
const isExact = (scales, { from }) => !from || (scales[from]?.exact ?? true);

/** log2 of the largest finite value of the format, less that of amax after scaling, of the record that comes nearest to
 * it: octaves that nothing uses. */
function headroom(scales, tensor, place) {
  const amax = scales.cells.amax[place];
  if (!(amax > 0) || !Number.isFinite(amax)) return NaN;
  const lift = scales.cells.lift[place] / scales.cells.lift_steps;
  return Math.log2(scales.formats[tensor.format].max) - Math.log2(amax) - scales.cells.bias[place] - lift;
}

/**
 * The ratio of signal to quantization noise in dB, estimated from a histogram of exponents: values of an exponent are
 * taken as spread evenly in their octave, and rounding errors as spread evenly between two neighbouring codes.
 */
function sqnr(scales, tensor, place) {
  const format = scales.formats[tensor.format],
    shares = scales.sharesAt(place);
  const { first, bias } = scales.waterfall;
  let signal = 0,
    noise = 0;
  shares.forEach((share, i) => {
    const exponent = first + i + bias[place];
    const power = share * (7 / 3) * 4 ** exponent;
    const spacing = 2 ** (Math.max(exponent, format.normal) - format.mantissa);
    signal += power;
    if (exponent < format.subnormal - 1) noise += power;
    else if (exponent > Math.floor(Math.log2(format.max))) noise += share * (1.5 * 2 ** exponent - format.max) ** 2;
    else noise += (share * spacing ** 2) / 12;
  });
  return signal > 0 && noise > 0 ? 10 * Math.log10(signal / noise) : NaN;
}

/** Of the values, the share that a histogram has between the format's smallest value and its smallest normal one. */
function subnormalShare(scales, tensor, place) {
  const format = scales.formats[tensor.format];
  const { first, bias } = scales.waterfall;
  let sum = 0;
  scales.sharesAt(place).forEach((share, i) => {
    const exponent = first + i + bias[place];
    if (exponent >= format.subnormal - 1 && exponent < format.normal) sum += share;
  });
  return sum;
}

/** Of the last histogram up to a step; each is looked at once, as a slider passes it many times. Of a tensor with several
 * scales there is none: a histogram does not say which value had which. */
const ofHistogram = (what) => {
  const known = new WeakMap();
  return (scales, tensor, place, step) => {
    if (tensor.scales) return NaN;
    const column = scales.columnAt(tensor, step);
    if (column < 0) return NaN;
    if (!known.has(scales)) known.set(scales, new Map());
    const values = known.get(scales);
    if (!values.has(column)) values.set(column, what(scales, tensor, column));
    return values.get(column);
  };
};
const ofCells = (name) => (scales, tensor, place) => scales.cells[name][place];

/** What a map can show. look: `linear`, `log` (with zero apart) or `share` (logarithmic, nothing lost left blank). */
const QUANTITIES = {
  scale_bias: {
    label: "scale_bias",
    look: "linear",
    at: ofCells("bias"),
    show: short,
    whole: true,
    of: "the smallest of the bin",
    ofSeveral: "the lowest of a tensor's scales, the smallest of the bin",
  },
  amax: { label: "amax", look: "log", at: ofCells("amax"), show: short, of: "the largest of the bin", from: "cells" },
  saturated: { label: "saturated, share of values", look: "share", at: ofCells("saturated"), show: percent, from: "cells" },
  flushed: { label: "flushed, share of values", look: "share", at: ofCells("flushed"), show: percent, from: "cells" },
  nonfinite: { label: "not finite, share of values", look: "share", at: ofCells("nonfinite"), show: percent, from: "cells" },
  headroom: {
    label: "headroom above amax, octaves",
    look: "linear",
    at: headroom,
    show: short,
    of: "log2(format's largest / scaled amax), the least of the bin",
    from: "cells",
  },
  subnormal: {
    label: "subnormal, share of values",
    look: "share",
    at: ofHistogram(subnormalShare),
    show: percent,
    of: "of the last histogram",
    lacks: "several scales",
    from: "waterfall",
    needsHistograms: true,
  },
  sqnr: {
    label: "SQNR estimated from exponents, dB",
    look: "linear",
    at: ofHistogram(sqnr),
    show: (x) => (Number.isFinite(x) ? `${short(x)} dB` : "–"),
    of: "of the last histogram",
    lacks: "several scales",
    from: "waterfall",
    needsHistograms: true,
  },
  spread: {
    label: "spread of scale_bias in the bin",
    look: "linear",
    at: ofCells("bias_spread"),
    show: short,
    whole: true,
    of: "largest less smallest, over steps, micro-batches and ranks",
    ofSeveral: "of the lowest of a tensor's scales: largest less smallest, over steps, micro-batches and ranks",
  },
  band: {
    label: "band of scale_bias",
    look: "linear",
    at: (scales, tensor, place) => (tensor.scales ? scales.cells.band[place] : NaN),
    show: short,
    whole: true,
    of: "highest less lowest of a tensor's scales in the bin",
    lacks: "one scale",
    needsSeveral: true,
  },
  rank_spread: {
    label: "spread of scale_bias over ranks",
    look: "linear",
    at: (scales, tensor, place, step) => scales.rankSpread(tensor, step),
    show: short,
    of: "largest less smallest mean of a rank",
    from: "ranks",
    needsRanks: true,
  },
};

/** The quantities that these scales have something for. */
function quantitiesOf(scales) {
  return Object.entries(QUANTITIES).filter(
    ([, quantity]) =>
      (!quantity.needsHistograms || scales.tellsValues) &&
      (!quantity.needsRanks || scales.ranks !== null) &&
      (!quantity.needsSeveral || scales.hasSeveral),
  );
}

/** The value of a tensor in a source at a bin of steps, which may be another source's; NaN if it has none there. */
function valueIn(source, tensor, quantity, first, last) {
  const { scales } = source,
    bin = scales.binWithin(first, last, tensor),
    place = bin < 0 ? -1 : scales.place(tensor, bin);
  return place < 0 ? NaN : quantity.at(scales, tensor, place, scales.bins[bin]);
}
