// The view "Table": every tensor with its numbers over all steps; sorted, filtered, and as CSV.

const SHOWN = 400;

/** Of all values of a tensor; null: it has none. */
function shareOf(name) {
  return (tensor) => (tensor.numel ? tensor[name] / tensor.numel : null);
}

/** csv: the column's name in a file, where no sign tells a share from a count. */
const COLUMNS = [
  { name: "scaling", of: (tensor, source) => source.label, isOfSeveral: true },
  { name: "module", of: (tensor) => tensor.module },
  { name: "layer", of: (tensor) => tensor.layer, number: true },
  { name: "kind", of: (tensor) => tensor.kind },
  { name: "role", of: (tensor) => tensor.role },
  { name: "format", of: (tensor) => tensor.format },
  { name: "granularity", of: (tensor) => tensor.granularity, isOfGroups: true },
  {
    name: "num_scales",
    title: "scales, most",
    of: (tensor) => (tensor.scales ? tensor.scales[1] : 1),
    number: true,
    show: count,
    isOfGroups: true,
  },
  { name: "bias_low", title: "scale_bias, smallest", of: (tensor) => tensor.biasLow, number: true },
  { name: "bias_high", title: "scale_bias, largest", of: (tensor) => tensor.biasHigh, number: true },
  { name: "amax", title: "amax, largest", csv: "amax_high", of: (tensor) => tensor.amaxHigh, number: true, show: short },
  { name: "saturated", csv: "saturated_share", of: shareOf("saturated"), number: true, show: percent },
  { name: "flushed", csv: "flushed_share", of: shareOf("flushed"), number: true, show: percent },
  {
    name: "nonfinite",
    title: "not finite",
    csv: "nonfinite_count",
    of: (tensor) => tensor.nonfinite,
    number: true,
    show: count,
  },
  {
    name: "rank_spread",
    title: "spread over ranks, all steps",
    of: (tensor) => tensor.rankSpread,
    number: true,
    show: short,
    isOfRanks: true,
  },
  { name: "records", of: (tensor) => tensor.rows, number: true, show: count },
];

function tableView(root, page) {
  if (!page.sources.length) return nothingRecorded(root);
  const hasRanks = page.sources.some((source) => source.scales.ranks),
    hasGroups = page.sources.some((source) => source.scales.hasSeveral);
  const inFile = COLUMNS.filter((column) => (!column.isOfRanks || hasRanks) && (!column.isOfGroups || hasGroups));
  const columns = inFile.filter((column) => !column.isOfSeveral || page.sources.length > 1);
  const all = page.sources.flatMap((source) => source.tensors.map((tensor) => ({ tensor, source })));
  const told = el("span", { class: "quiet" }),
    body = el("tbody", {}),
    head = el("tr", {});
  let rows = [],
    limit = SHOWN;
  const more = el(
    "button",
    {
      type: "button",
      onclick: () => {
        limit = Infinity;
        draw();
      },
    },
    "Show all",
  );
  const draw = () => {
    rows = sorted(all.filter(matches));
    head.replaceChildren(...columns.map(headCell));
    body.replaceChildren(...rows.slice(0, limit).map((row) => bodyRow(row, columns)));
    told.textContent = `${count(rows.length)} of ${count(all.length)} tensors${rows.length > limit ? `, the first ${limit} shown` : ""}`;
    more.hidden = rows.length <= limit;
  };
  const field = el("input", {
    type: "search",
    value: state.find,
    placeholder: "part of its name",
    "aria-label": "Module",
    oninput: (event) => set({ find: event.target.value }, true),
  });
  const filter = (label, name, options) =>
    choice(label, state[name], [["", "all"], ...options], (value) => set({ [name]: value }, true));
  root.append(
    el(
      "div",
      { class: "controls" },
      el("label", { class: "field" }, el("span", {}, "Module"), field),
      page.sources.length > 1
        ? filter(
            "Scaling",
            "of",
            page.sources.map((source) => [source.label, printable(source.label)]),
          )
        : null,
      filter(
        "Role",
        "only",
        ROLES.filter((role) => all.some((row) => row.tensor.role === role)).map((role) => [role, ROLE_LABELS[role]]),
      ),
      filter(
        "Kind",
        "kind",
        KINDS.filter((kind) => all.some((row) => row.tensor.kind === kind)).map((kind) => [kind, KIND_LABELS[kind]]),
      ),
      el("button", { type: "button", id: "export", onclick: () => download(rows, inFile) }, "Export CSV"),
    ),
    el("p", {}, told, " ", more),
    el("div", { class: "scrolls" }, el("table", { class: "tensors" }, el("thead", {}, head), body)),
  );
  draw();
  return { update: draw, resize: () => {} };
}

/** Whether the filters of the state let a row pass. */
function matches({ tensor, source }) {
  return (
    (!state.of || source.label === state.of) &&
    (!state.only || tensor.role === state.only) &&
    (!state.kind || tensor.kind === state.kind) &&
    tensor.module.toLowerCase().includes(state.find.toLowerCase())
  );
}

/** By the state's column; `-name` for descending. */
function sorted(rows) {
  const name = state.sort.replace(/^-/, ""),
    column = COLUMNS.find((each) => each.name === name);
  if (!column) return rows;
  const way = state.sort.startsWith("-") ? -1 : 1;
  const value = ({ tensor, source }) => column.of(tensor, source) ?? -1;
  const compare = column.number
    ? (a, b) => value(a) - value(b)
    : (a, b) => String(value(a)).localeCompare(String(value(b)), "en", { numeric: true });
  return [...rows].sort((a, b) => way * compare(a, b));
}

function headCell(column) {
  const isOwn = state.sort.replace(/^-/, "") === column.name,
    isDown = state.sort.startsWith("-");
  const next = isOwn
    ? isDown === Boolean(column.number)
      ? column.number
        ? column.name
        : `-${column.name}`
      : ""
    : column.number
      ? `-${column.name}`
      : column.name;
  const button = el(
    "button",
    { type: "button", onclick: () => set({ sort: next }, true) },
    column.title ?? column.name,
    isOwn ? (isDown ? " ↓" : " ↑") : "",
  );
  return el(
    "th",
    {
      scope: "col",
      class: column.number ? "number" : "",
      "aria-sort": isOwn ? (isDown ? "descending" : "ascending") : "none",
    },
    button,
  );
}

function bodyRow({ tensor, source }, columns) {
  return el(
    "tr",
    {},
    columns.map((column) => {
      const value = column.of(tensor, source);
      if (column.name === "module")
        return el(
          "td",
          {},
          linkTo(
            { view: "tensor", source: source.label, module: tensor.module, role: tensor.role },
            named(tensor.module),
          ),
        );
      const text = column.show ? column.show(value) : value === null ? "–" : printable(value);
      return el("td", { class: column.number ? "number" : "" }, text);
    }),
  );
}

/** All numbers as they are; one that is none is empty, and an amax that was infinity or NaN, which the page does not
 * tell apart, is "not finite". A text that a spreadsheet would take for a formula begins with an apostrophe. */
function csvOf(rows, columns) {
  const cell = (value) => {
    if (value === null || Number.isNaN(value)) return "";
    if (typeof value === "number") return Number.isFinite(value) ? String(value) : "not finite";
    const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return (
    [
      columns.map((column) => column.csv ?? column.name),
      ...rows.map(({ tensor, source }) => columns.map((column) => column.of(tensor, source))),
    ]
      .map((line) => line.map(cell).join(","))
      .join("\r\n") + "\r\n"
  );
}

function download(rows, columns) {
  const url = URL.createObjectURL(new Blob([csvOf(rows, columns)], { type: "text/csv;charset=utf-8" }));
  el("a", { href: url, download: "scales.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
