// The view "Tensor": one operand of one module over all steps: its scale, its values' exponents, what it loses.

function tensorView(root, page) {
  const source = page.source();
  if (!source) return nothingRecorded(root);
  const tensor = chosenTensor(source);
  const slider = stepSlider(source);
  root.append(tensorHead(tensor, source, page), el("div", { class: "controls" }, ...sourceChoices(page)), slider.box);
  const grid = el("div", { class: "plots" });
  root.append(grid);
  const sources = [source, page.against()].filter((each) => each?.byName.has(key(tensor.module, tensor.role)));
  const missing =
    page.against() && sources.length < 2
      ? el("p", { class: "quiet" }, `${printable(page.against().label)} has no such tensor.`)
      : null;
  if (missing) root.insertBefore(missing, grid);
  drawScales(grid, sources, tensor);
  const fall = drawExponents(grid, source, tensor);
  drawShares(grid, sources, tensor);
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
  const alike = source.tensors.filter((each) => each.role === tensor.role && lineOf(each) === lineOf(tensor));
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
  ];
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

function drawScales(grid, sources, tensor) {
  const own = (source) => source.byName.get(key(tensor.module, tensor.role));
  const lines = (names) =>
    sources.map((source, look) => ({ label: source.label, look, ...overSteps(source, own(source), names) }));
  const bias = lines({ y: "bias", spread: "bias_spread" }).map((line) => ({
    ...line,
    low: line.y,
    high: line.y.map((low, i) => low + line.spread[i]),
  }));
  const unit = sources[0].scales.unit;
  lineFigure(grid, {
    title: "scale_bias: smallest of each bin; band: up to the largest",
    lines: bias,
    whole: true,
    unit,
  });
  const amax = lines({ y: "amax", low: "amax_low", high: "amax" });
  lineFigure(grid, {
    title: "amax: largest of each bin; band: down to the smallest",
    lines: amax,
    log: 2,
    unit,
    say: roughly(
      short,
      sources.every((source) => source.scales.cells.exact),
    ),
  });
}

function drawShares(grid, sources, tensor) {
  const lines = [];
  sources.forEach((source, at) => {
    const { scales } = source,
      own = source.byName.get(key(tensor.module, tensor.role)),
      label = sources.length > 1 ? `${source.label}: ` : "";
    const cells = overSteps(source, own, { saturated: "saturated", flushed: "flushed" });
    const places = scales.columns[own.at];
    const subnormal = {
      x: places.map((place) => scales.waterfall.step[place]),
      y: places.map((place) => subnormalShare(scales, own, place)),
    };
    [
      ["flushed", { x: cells.x, y: cells.flushed }],
      ["subnormal", subnormal],
      ["saturated", { x: cells.x, y: cells.saturated }],
    ].forEach(([name, points], look) => {
      const occurs = points.y.some((share) => share > 0);
      if (occurs) lines.push({ label: label + name, ...points, look: look + 1, color: lineColor(look + 1 + 3 * at) });
    });
  });
  const title = "Shares of the values: flushed to zero, subnormal, saturated";
  const areExact = sources.every(({ scales }) => scales.cells.exact && scales.waterfall.exact);
  const say = roughly(percent, areExact);
  if (lines.length) lineFigure(grid, { title, lines, log: 10, show: percent, say, unit: sources[0].scales.unit });
  else
    grid.append(
      el(
        "figure",
        { class: "plot" },
        el("figcaption", {}, title),
        el("p", { class: "quiet" }, "None of its values is flushed, subnormal or saturated."),
      ),
    );
}
