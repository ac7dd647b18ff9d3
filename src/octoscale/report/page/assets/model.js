// Runs, their sources and tensors. A source is what can be looked at alone: one scaling of one run.

const ROLES = ["weight", "input", "grad_output"];
const ROLE_LABELS = { weight: "weights", input: "activations", grad_output: "gradients" };
const KINDS = ["attn_qkv", "attn_out", "ffn_in", "ffn_out", "other"];
const KIND_LABELS = {
  attn_qkv: "attn qkv",
  attn_out: "attn out",
  ffn_in: "ff intermediate",
  ffn_out: "ff output",
  other: "other",
};

/** What has a scale of its own, by granularity: one of it, and many. */
const GROUPS = { tensor: ["tensor", "tensors"], row: ["row", "rows"], block: ["block", "blocks"], mx: ["group of 32", "groups of 32"] };

/** The scales of a tensor, from the lowest to the highest; of several also how many and of what: "3 to 9 over 512 rows". */
function bandOf(tensor, low, high) {
  if (!tensor.scales) return String(low);
  return `${high > low ? `${low} to ${high}` : low} over ${numScalesOf(tensor)}`;
}

/** "512 rows"; "480 to 512 rows" where a tensor has not as many at each step. */
function numScalesOf({ granularity, scales: [low, high] }) {
  return `${high > low ? `${count(low)} to ` : ""}${count(high)} ${GROUPS[granularity][high === 1 ? 0 : 1]}`;
}

/** Letters that are not seen, act, or are halves of one: those that Python's one_line of system/printable.py escapes. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** A name as the page shows it: what would be invisible, or reorder the line, stands as its escape. */
function printable(text) {
  return String(text).replace(UNSEEN, (letter) => {
    const code = letter.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
  });
}

/** The records of a run, as the page asks for them. */
class Scales {
  constructor(json) {
    Object.assign(this, json);
    this.bins = json.cells.bins;
    const phases = new Set(json.groups.map((group) => group.phase));
    this.unit = phases.size === 1 && phases.has("validate") ? "window" : "step";
    this.rowsOf = new Map();
    this.tensors = this.#tensors(json.tensors);
    this.columns = this.#columns(json.waterfall);
    this.hasSeveral = this.tensors.some((tensor) => tensor.scales);
    this.tellsValues = this.tensors.some((tensor) => !tensor.scales && this.columns[tensor.at].length > 0);
  }

  #tensors(of) {
    const named = (name, at) => of[name].texts[of[name].places[at]];
    return Array.from(of.group, (group, at) => ({
      at,
      group,
      module: named("module", at),
      kind: named("kind", at),
      role: named("role", at),
      format: named("format", at),
      layer: of.layer[at] < 0 ? null : of.layer[at],
      rows: of.rows[at],
      numel: of.numel[at],
      saturated: of.saturated[at],
      flushed: of.flushed[at],
      nonfinite: of.nonfinite[at],
      biasLow: of.bias_low[at],
      biasHigh: of.top[at],
      granularity: named("granularity", at),
      scales: of.scales_high[at] > 0 ? [of.scales_low[at], of.scales_high[at]] : null,
      amaxLow: of.amax_low[at],
      amaxHigh: of.amax_high[at],
      rankSpread: this.ranks && this.ranks.of_all_steps[at] >= 0 ? this.ranks.of_all_steps[at] : null,
    }));
  }

  /** Of each tensor, the places of its histograms, by step. */
  #columns(waterfall) {
    const found = this.tensors.map(() => []);
    waterfall.tensor.forEach((tensor, place) => found[tensor].push(place));
    return found;
  }

  /** The last bin that begins at a step or before it; the first one if there is none. */
  binOf(step, bins = this.bins) {
    let low = 0;
    for (let high = bins.length - 1; low < high;) {
      const middle = (low + high + 1) >> 1;
      if (bins[middle] <= step) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** How far apart a tensor's mean scale_bias is on the ranks, in their bin that holds a step; NaN: nothing to compare.
   * A weight's cast holds until the next one. */
  rankSpread(tensor, step) {
    if (!this.ranks) return NaN;
    const { bins, width, steps, spread } = this.ranks,
      first = this.binOf(step, bins);
    if (tensor.role !== "weight" && bins[first] + width <= step) return NaN;
    for (let bin = first; bin >= 0; bin--) {
      const value = spread[tensor.at * bins.length + bin];
      if (value >= 0) return value / steps;
      if (tensor.role !== "weight") break;
    }
    return NaN;
  }

  /** The bin that has steps from first to last, the earliest of several; -1: none has. A weight's cast holds longer. */
  binWithin(first, last, tensor) {
    const bin = this.binOf(first),
      begins = this.bins[bin];
    if (begins <= last && begins + this.cells.width > first) return bin;
    if (this.bins[bin + 1] <= last) return bin + 1;
    const isHeld = begins <= first && (first <= this.last_step || this.unit === "window");
    return tensor.role === "weight" && isHeld ? bin : -1;
  }

  /** Where a tensor's numbers of a bin stand; -1 if it has none. A weight's cast holds until the next one. */
  place(tensor, bin) {
    const start = tensor.at * this.bins.length;
    for (let b = bin; b >= 0; b--) {
      if (this.cells.rows[start + b] > 0) return start + b;
      if (tensor.role !== "weight") return -1;
    }
    return -1;
  }

  /** The highest scale of a tensor in one of its cells; that of its only one, where there is one, may be lower at times. */
  highest(tensor, place) {
    const { bias, bias_spread: spread, band } = this.cells;
    return bias[place] + (tensor.scales ? band : spread)[place];
  }

  /** The lowest and the highest scale with which a histogram was recorded. */
  scalesAt(tensor, place) {
    const { bias, highest } = this.waterfall;
    return [bias[place], tensor.scales ? highest[place] : bias[place]];
  }

  /** The place of the last histogram of a tensor up to a step, or its first one; -1 if it has none. */
  columnAt(tensor, step) {
    const places = this.columns[tensor.at];
    if (!places.length) return -1;
    let low = 0;
    for (let high = places.length - 1; low < high;) {
      const middle = (low + high + 1) >> 1;
      if (this.waterfall.step[places[middle]] <= step) low = middle;
      else high = middle - 1;
    }
    return places[low];
  }

  /** The shares of one histogram, by exponent from `waterfall.first` on. */
  sharesAt(place) {
    const { count, shares } = this.waterfall;
    return shares.subarray(place * count, (place + 1) * count);
  }

  /** "step 12", or "steps 12 to 15" of a bin that holds several; a validation's steps are windows. */
  stepsOf(bin) {
    const first = this.bins[bin],
      last = Math.min(first + this.cells.width - 1, this.last_step);
    return last > first ? `${this.unit}s ${count(first)} to ${count(last)}` : `${this.unit} ${count(first)}`;
  }
}

/** The sources of some runs: labels are distinct, and short where there is only one run. */
function sourcesOf(runs) {
  const found = [];
  for (const run of runs) {
    const { scales } = run;
    const phases = new Set(scales.groups.map((group) => group.phase));
    scales.groups.forEach((group, at) => {
      const tensors = scales.tensors.filter((tensor) => tensor.group === at);
      const parts = [runs.length > 1 ? run.label : "", phases.size > 1 ? group.phase : "", group.scaling];
      const label = [...new Set(parts.filter(Boolean))].join(": ") || "recorded";
      const byName = new Map(tensors.map((tensor) => [key(tensor.module, tensor.role), tensor]));
      found.push({ run, scales, label, scaling: group.scaling, tensors, byName });
    });
  }
  return found;
}

const key = (module, role) => `${role}\n${module}`;

/** A module's name without the number of its layer, so that modules of all layers that are alike share a line. */
function lineOf(tensor) {
  if (tensor.layer === null) return tensor.module;
  const parts = tensor.module.split(".");
  const at = parts.indexOf(String(tensor.layer));
  return at < 0 ? tensor.module : [...parts.slice(0, at), "*", ...parts.slice(at + 1)].join(".");
}

/** Modules that differ only in their layer share a line; lines in the order of roles, kinds and first appearance. */
function linesOf(tensors) {
  const found = new Map();
  for (const tensor of tensors) {
    const name = lineOf(tensor),
      id = key(name, tensor.role);
    if (!found.has(id)) found.set(id, { name, role: tensor.role, kind: tensor.kind, tensors: [] });
    found.get(id).tensors.push(tensor);
  }
  const lines = [...found.values()];
  const start = sharedStart(lines.map((line) => line.name));
  for (const line of lines) line.label = line.name.slice(start) || line.name;
  return lines.sort(
    (a, b) => ROLES.indexOf(a.role) - ROLES.indexOf(b.role) || KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind),
  );
}

/** How long the names' common beginning is, up to a dot. */
function sharedStart(names) {
  const [first] = names;
  let end = first.length;
  for (const name of names) while (!name.startsWith(first.slice(0, end))) end--;
  return first.lastIndexOf(".", end - 1) + 1;
}
