// The view "Tensor": one operand of one module over all steps: its scale, its values' exponents, what it loses.

function tensorView(root, page) {
  const source = page.source();
  if (!source) return nothingRecorded(root);
  const tensor = chosenTensor(source);
  const slider = stepSlider(source);
  root.append(tensorHead(tensor, source, page), el("div", { class: "controls" }, ...sourceChoices(page, true)), slider.box);
  const all = [source, ...page.against()].map((each, look) => ({
    source: each,
    look,
    own: each.byName.get(key(tensor.module, tensor.role)),
  }));
  const compared = all.filter((each) => each.own),
    lacking = all.filter((each) => !each.own).map((each) => printable(each.source.label));
  if (lacking.length) {
    const verb = lacking.length > 1 ? "have" : "has";
    root.append(el("p", { class: "quiet" }, `${lacking.join(", ")} ${verb} no such tensor.`));
  }
  const grid = el("div", { class: "plots" });
  root.append(grid);
  drawScales(grid, compared);
  const fall = drawExponents(grid, source, tensor, compared.length > 1 ? source.label : "");
  if (compared.length > 1) drawSharesOfMany(grid, compared);
  else drawShares(grid, compared[0]);
  const update = () => {
    const { scales } = source;
    const bin = state.step === "" ? scales.bins.length - 1 : scales.binOf(Number(state.step));
    slider.show(bin);
    fall(scales.bins[bin] + scales.cells.width - 1);
  };
  update();
  return {
    update,
    resize: () => {
      resizePlots();
      update();
    },
    step: slider.by,
    play: slider.play,
    doing: slider.isPlaying,
    goOn: slider.goOn,
  };
}

/** The tensor that the state names; else the one of the state's module, else the first one. */
function chosenTensor(source) {
  const exact = source.byName.get(key(state.module, state.role));
  return (
    exact ??
    source.tensors.find((tensor) => tensor.module === state.module) ??
    source.tensors.find((tensor) => tensor.role === (state.role || "input")) ??
    source.tensors[0]
  );
}

function tensorHead(tensor, source, page) {
  const roles = ROLES.filter((role) => source.byName.has(key(tensor.module, role)));
  const tabs = roles.map((role) =>
    el(
      "button",
      {
        type: "button",
        "aria-pressed": String(role === tensor.role),
        onclick: () => set({ module: tensor.module, role }),
      },
      ROLE_LABELS[role],
    ),
  );
  const alike = source.tensors
    .filter((each) => each.role === tensor.role && lineOf(each) === lineOf(tensor))
    .sort((a, b) => (a.layer ?? -1) - (b.layer ?? -1)); // backward records the last layer first
  const at = alike.indexOf(tensor);
  const turn = (by, text) =>
    el(
      "button",
      {
        type: "button",
        disabled: !alike[at + by],
        onclick: () => set({ module: alike[at + by].module, role: tensor.role }),
      },
      text,
    );
  const words = [
    tensor.format,
    KIND_LABELS[tensor.kind] ?? tensor.kind,
    tensor.layer === null ? "in no layer" : `layer ${tensor.layer}`,
    `${count(tensor.numel)} values in ${count(tensor.rows)} ${tensor.rows === 1 ? "record" : "records"}`,
    tensor.scales ? `a scale for each ${GROUPS[tensor.granularity][0]}: ${numScalesOf(tensor)}` : null,
  ].filter(Boolean);
  return el(
    "div",
    { class: "head" },
    el("h2", {}, named(tensor.module)),
    el("p", { class: "quiet" }, [...words, printable(source.label)].join(" · ")),
    el(
      "div",
      { class: "buttons" },
      el("span", { role: "group", "aria-label": "Role", class: "group" }, tabs),
      el("span", { class: "group", role: "group", "aria-label": "Layer" }, turn(-1, "← layer"), turn(1, "layer →")),
    ),
  );
}

/** Steps and values of a column of cells, where the tensor has records. */
function overSteps(source, tensor, names) {
  const { scales } = source,
    start = tensor.at * scales.bins.length;
  const bins = scales.bins.map((_, bin) => bin).filter((bin) => scales.cells.rows[start + bin] > 0);
  const of = (name) => bins.map((bin) => scales.cells[name][start + bin]);
  return {
    x: bins.map((bin) => scales.bins[bin]),
    ...Object.fromEntries(Object.entries(names).map(([as, name]) => [as, of(name)])),
  };
}

/** Lines of some columns of cells, one a source; compared: [{source, own, look}]. */
const linesOfCells = (compared, names) =>
  compared.map(({ source, own, look }) => ({ label: source.label, look, ...overSteps(source, own, names) }));

function drawScales(grid, compared) {
  const bias = compared.map(({ source, own, look }) => {
    const { scales } = source,
      line = overSteps(source, own, { y: "bias" });
    const places = line.x.map((step) => own.at * scales.bins.length + scales.binOf(step));
    return { label: source.label, look, ...line, low: line.y, high: places.map((place) => scales.highest(own, place)) };
  });
  const unit = compared[0].source.scales.unit,
    several = compared.some(({ own }) => own.scales);
  lineFigure(grid, {
    title: several
      ? "scale_bias: lowest of all scales; band: up to the highest"
      : "scale_bias: smallest of each bin; band: up to the largest",
    lines: bias,
    whole: true,
    unit,
  });
  const amax = linesOfCells(compared, { y: "amax", low: "amax_low", high: "amax" });
  lineFigure(grid, {
    title: "amax: largest of each bin; band: down to the smallest",
    lines: amax,
    log: 2,
    unit,
    say: roughly(short, areExact(compared)),
  });
}

const areExact = (compared) =>
  compared.every(({ source: { scales } }) => scales.cells.exact && scales.waterfall.exact);

/** The shares that a tensor loses, or keeps with fewer bits: name, what it means in a title, and its points. */
function sharesOf({ source, own }) {
  const { scales } = source,
    cells = overSteps(source, own, { saturated: "saturated", flushed: "flushed" }),
    places = scales.columns[own.at];
  const subnormal = {
    x: places.map((place) => scales.waterfall.step[place]),
    y: places.map((place) => (own.scales ? NaN : subnormalShare(scales, own, place))),
    isUnknown: own.scales !== null,
  };
  return [
    ["flushed", "flushed to zero", { x: cells.x, y: cells.flushed }],
    ["subnormal", "subnormal", subnormal],
    ["saturated", "saturated", { x: cells.x, y: cells.saturated }],
  ];
}

const occurs = ({ y }) => y.some((share) => share > 0);

/** What a figure of shares is called; which values are subnormal is not known where each group has its own scale. */
const sharesTitle = (compared) =>
  compared.every(({ own }) => own.scales)
    ? "Shares of the values: flushed to zero, saturated"
    : "Shares of the values: flushed to zero, subnormal, saturated";

/** All shares of one source in one figure. */
function drawShares(grid, of) {
  const lines = sharesOf(of)
    .map(([name, , points], at) => ({ label: name, look: at + 1, ...points }))
    .filter(occurs);
  drawOrSay(grid, sharesTitle([of]), lines, [of]);
}

/** Of several sources a figure for each share: there, a source's lines look as in all figures. */
function drawSharesOfMany(grid, compared) {
  const shares = compared.map(sharesOf);
  const figures = shares[0]
    .map(([, title], at) => {
      const lines = compared.map(({ source, look }, i) => {
        const points = shares[i][at][2];
        const none = points.isUnknown ? "not known of several scales" : occurs(points) ? "–" : percent(0);
        return { label: source.label, look, none, ...points };
      });
      return [`Share of the values: ${title}`, lines];
    })
    .filter(([, lines]) => lines.some(occurs));
  for (const [title, lines] of figures) drawOrSay(grid, title, lines, compared);
  if (!figures.length) drawOrSay(grid, sharesTitle(compared), [], compared);
}

function drawOrSay(grid, title, lines, compared) {
  const say = roughly(percent, areExact(compared)),
    unit = compared[0].source.scales.unit;
  if (lines.length) return lineFigure(grid, { title, lines, log: 10, show: percent, say, unit });
  const what = compared.some(({ own }) => own.scales) ? "flushed or saturated" : "flushed, subnormal or saturated";
  const none = el("p", { class: "quiet" }, `None of its values is ${what}.`);
  grid.append(el("figure", { class: "plot" }, el("figcaption", {}, title), none));
}
