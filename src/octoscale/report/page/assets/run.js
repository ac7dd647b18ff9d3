// The view "Run": losses, rates and scales over one axis of steps; runs side by side, with what tells them apart.

function runView(root, page) {
  if (page.sources.length > 1) root.append(el("div", { class: "controls" }, ...sourceChoices(page)));
  if (page.runs.length > 1) root.append(differences(page.runs));
  const grid = el("div", { class: "plots" });
  root.append(grid);
  const names = [...new Set(page.runs.flatMap((run) => run.series.map((line) => line.name)))];
  for (const name of names) drawSeries(grid, page, name);
  if (page.runs.length > 1) drawExcess(grid, page.runs);
  for (const source of [page.source(), page.against()[0]].filter(Boolean))
    drawMeanScales(grid, source, page.sources.length > 1);
  if (!names.length && !page.source())
    root.append(el("p", { class: "quiet" }, "No losses and no scales were recorded."));
  for (const run of page.runs) if (run.figures.length) root.append(figuresOf(run, page.runs.length > 1));
  return { update: () => {}, resize: resizePlots };
}

/** Lines of one figure: more of them nobody tells apart. */
const MOST_LINES = 14;

const LOGARITHMIC = { "gradient norm": 10, "loss scale": 2 };

/** One quantity of all runs, and all scalings, over each other. */
function drawSeries(grid, page, name) {
  const lines = page.runs.flatMap((run) =>
    run.series
      .filter((line) => line.name === name)
      .map((line) => ({
        label:
          [page.runs.length > 1 ? run.label : "", line.scaling]
            .filter((part, at, all) => part && all.indexOf(part) === at)
            .join(": ") || name,
        x: Array.from(line.x),
        y: Array.from(line.y),
        low: line.low,
        high: line.high,
        unit: line.unit,
        binned: line.binned,
      })),
  );
  const binned = lines.find((line) => line.binned)?.binned;
  const title =
    name[0].toUpperCase() + name.slice(1) + (binned ? `: mean of ${binned} steps; band: lowest to highest` : "");
  const part = lines.length > MOST_LINES ? `; the first ${MOST_LINES} of ${count(lines.length)} lines` : "";
  lineFigure(grid, {
    title: title + part,
    lines: lines.slice(0, MOST_LINES),
    log: LOGARITHMIC[name] ?? 0,
    unit: lines[0].unit,
  });
}

/** How far the loss of each run lies above the first one in high precision, or the first of all, in %. */
function drawExcess(grid, runs) {
  const curves = runs.map((run) => [run, run.series.find((line) => line.name === "loss")]).filter(([, line]) => line);
  if (curves.length < 2) return;
  const [reference, base] = curves.find(([, line]) => ["bf16", "fp16", "fp32"].includes(line.scaling)) ?? curves[0];
  const width = Math.max(1, Math.floor(base.y.length / 25)) * (base.binned ?? 1);
  const of = running(base, width);
  const lines = curves
    .filter(([run]) => run !== reference)
    .map(([run, line]) => {
      const own = running(line, width);
      const points = Array.from(line.x, (x) => [x, 100 * (own(x) / of(x) - 1)]).filter(([, excess]) =>
        Number.isFinite(excess),
      );
      return { label: run.label, look: runs.indexOf(run), x: points.map(([x]) => x), y: points.map(([, y]) => y) };
    });
  lineFigure(grid, {
    title: `Loss above that of ${printable(reference.label)}, in %, means of ${count(width)} ${base.unit}s`,
    lines,
    show: (x) => `${signed(x)} %`,
  });
}

/**
 * The mean of a line's points in the `width` steps up to one of its steps; what is not finite is left out. NaN beyond its
 * ends, and where all of them were not finite.
 */
function running(line, width) {
  const sums = [0],
    counts = [0];
  for (const y of line.y) {
    sums.push(sums.at(-1) + (Number.isFinite(y) ? y : 0));
    counts.push(counts.at(-1) + Number.isFinite(y));
  }
  const upTo = (step) => {
    let low = 0;
    for (let high = line.x.length; low < high;) {
      const middle = (low + high) >> 1;
      if (line.x[middle] <= step) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const end = line.x.at(-1) + (line.binned ?? 1) - 1;
  return (step) => {
    if (step > end) return NaN;
    const [first, last] = [upTo(step - width), upTo(step)];
    return (sums[last] - sums[first]) / (counts[last] - counts[first]);
  };
}

/** The mean scale_bias of each role over the steps; the band reaches from the smallest to the largest. */
function drawMeanScales(grid, source, isOneOfSeveral) {
  const { scales } = source,
    several = source.tensors.some((tensor) => tensor.scales);
  const lines = ROLES.filter((role) => source.tensors.some((tensor) => tensor.role === role)).map((role) => {
    const of = source.tensors.filter((tensor) => tensor.role === role);
    const line = { label: ROLE_LABELS[role], look: 1 + ROLES.indexOf(role), x: [], y: [], low: [], high: [] };
    scales.bins.forEach((step, bin) => {
      const cells = of
        .map((tensor) => [tensor, tensor.at * scales.bins.length + bin])
        .filter(([, place]) => scales.cells.rows[place] > 0);
      if (!cells.length) return;
      const biases = cells.map(([, place]) => scales.cells.bias[place]);
      const tops = several ? cells.map(([tensor, place]) => scales.highest(tensor, place)) : biases;
      line.x.push(step);
      line.y.push(biases.reduce((sum, bias) => sum + bias, 0) / biases.length);
      line.low.push(biases.reduce((least, bias) => Math.min(least, bias)));
      line.high.push(tops.reduce((most, bias) => Math.max(most, bias)));
    });
    return line;
  });
  const of = isOneOfSeveral ? `, ${printable(source.label)}` : "";
  lineFigure(grid, {
    title: several
      ? `scale_bias by role: mean over tensors, of the lowest of their scales; band: all scales of all tensors${of}`
      : `scale_bias by role: mean over tensors; band: all tensors${of}`,
    lines,
    whole: true,
    unit: scales.unit,
  });
}

/** What was asked of each run, and what it reached; lines that differ are marked. */
function differences(runs) {
  const names = [...new Set(runs.flatMap((run) => run.facts.map(([name]) => name)))];
  const reached = [
    ...new Set(
      runs.flatMap((run) => run.tables.flatMap((table) => table.rows.map((row) => `${table.title}: ${row[0]}`))),
    ),
  ];
  const fact = (run, name) => run.facts.find(([each]) => each === name)?.[1] ?? "–";
  const result = (run, name) =>
    run.tables.flatMap((table) =>
      table.rows
        .filter((row) => `${table.title}: ${row[0]}` === name)
        .map((row) => row.slice(1).filter(Boolean).join(" → ")),
    )[0] ?? "–";
  const line = (name, of) => {
    const values = runs.map((run) => of(run, name)),
      differs = new Set(values).size > 1;
    return { name, values, differs };
  };
  const lines = [...reached.map((name) => line(name, result)), ...names.map((name) => line(name, fact))];
  const rows = (wanted) =>
    wanted.map(({ name, values, differs }) =>
      el(
        "tr",
        { class: differs ? "differs" : "" },
        el("th", { scope: "row" }, printable(name)),
        values.map((value) => el("td", {}, printable(value))),
      ),
    );
  const head = el(
    "tr",
    {},
    el("th", {}, ""),
    runs.map((run) => el("th", { scope: "col" }, printable(run.label))),
  );
  const [differ, alike] = [lines.filter((each) => each.differs), lines.filter((each) => !each.differs)];
  const table = (wanted) =>
    el(
      "div",
      { class: "scrolls" },
      el("table", { class: "differences" }, el("thead", {}, head.cloneNode(true)), el("tbody", {}, rows(wanted))),
    );
  return el(
    "section",
    {},
    el("h2", {}, "What differs"),
    table(differ),
    el("details", {}, el("summary", {}, `${alike.length} lines are alike`), table(alike)),
  );
}

/** The figures that the run's folder holds; a click shows one as wide as the page. */
function figuresOf(run, isOneOfSeveral) {
  const shown = run.figures.map((figure) => {
    const image = el("img", {
      alt: printable(figure.name),
      loading: "lazy",
      src: URL.createObjectURL(new Blob([figure.data], { type: figure.type })),
    });
    const button = el(
      "button",
      {
        type: "button",
        class: "picture",
        "aria-label": `Enlarge ${printable(figure.name)}`,
        onclick: () => button.classList.toggle("large"),
      },
      image,
    );
    return el("figure", {}, button, el("figcaption", {}, printable(figure.name)));
  });
  return el(
    "section",
    {},
    el("h2", {}, `Figures${isOneOfSeveral ? `, ${printable(run.label)}` : ""}`),
    el("div", { class: "pictures" }, shown),
  );
}
