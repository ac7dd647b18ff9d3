// The view "What was found": findings as sentences, results, what is missing, what was run.

const MARKS = { fault: ["✕", "fault"], warning: ["!", "warning"], note: ["i", "note"] };

function foundView(root, page) {
  const many = page.runs.length > 1;
  for (const run of page.runs) {
    const main = el(
      "div",
      {},
      stateOf(run),
      damageOf(run),
      findingsOf(run, page),
      run.words.map((text) => el("p", {}, printable(text))),
    );
    const side = el("div", {}, run.tables.map(resultTable), factsOf(run, !many));
    root.append(
      el("section", {}, many ? el("h2", {}, printable(run.label)) : null, el("div", { class: "run" }, main, side)),
    );
  }
}

function stateOf(run) {
  return el(
    "p",
    { class: "lead" },
    el("span", { class: `chip ${run.state.name}` }, run.state.name),
    " ",
    printable(run.state.text),
  );
}

function findingsOf(run, page) {
  if (!run.findings.length)
    return el(
      "p",
      { class: "quiet" },
      "No scales were recorded: there is nothing to find. FP8 layers record theirs; bf16, fp16 and fp32 have none.",
    );
  return el(
    "ol",
    { class: "findings" },
    run.findings.map((finding) => findingItem(finding, run, page)),
  );
}

function findingItem(finding, run, page) {
  const [mark, word] = MARKS[finding.severity] ?? MARKS.note;
  const of = [
    finding.module ? named(finding.module) : null,
    finding.role ? el("span", { class: "quiet" }, ` ${ROLE_LABELS[finding.role] ?? printable(finding.role)}`) : null,
  ];
  const scaling =
    finding.module && finding.scaling && page.sources.length > 1
      ? el("span", { class: "quiet" }, ` under ${printable(finding.scaling)}`)
      : null;
  const text = el(
    "div",
    {},
    ...of,
    scaling,
    of[0] ? el("br") : null,
    el("span", {}, printable(finding.words), " "),
    viewOf(finding, run, page),
  );
  if (finding.remedy)
    text.append(el("div", { class: "remedy" }, el("span", { class: "quiet" }, "To do: "), printable(finding.remedy)));
  return el(
    "li",
    { class: finding.severity },
    el("span", { class: "sign", title: word, "aria-label": word }, mark),
    text,
  );
}

/** The link to the view that shows a finding: its tensor at its step, or the map. */
function viewOf(finding, run, page) {
  const source = page.sources.find(
    (each) =>
      each.run === run &&
      (!finding.scaling ||
        (each.scaling === finding.scaling && (!finding.module || each.byName.has(key(finding.module, finding.role))))),
  );
  if (!source) return null;
  const step = finding.step === null || finding.step === undefined ? {} : { step: String(finding.step) };
  if (finding.module && source.byName.has(key(finding.module, finding.role))) {
    return linkTo(
      { view: "tensor", source: source.label, module: finding.module, role: finding.role, ...step },
      "Show the tensor",
    );
  }
  return linkTo(
    { view: "map", source: source.label, ...(finding.quantity ? { quantity: finding.quantity } : {}), ...step },
    "Show the map",
  );
}

function resultTable(table) {
  const head = el(
    "tr",
    {},
    table.columns.map((name) => el("th", { scope: "col" }, printable(name))),
  );
  const rows = table.rows.map((row) =>
    el(
      "tr",
      {},
      row.map((text, at) => el(at ? "td" : "th", at ? {} : { scope: "row" }, printable(text))),
    ),
  );
  return el(
    "div",
    { class: "scrolls" },
    el(
      "table",
      { class: "results" },
      el("caption", {}, printable(table.title)),
      el("thead", {}, head),
      el("tbody", {}, rows),
    ),
  );
}

function damageOf(run) {
  if (!run.damaged.length) return null;
  return el(
    "div",
    { class: "damage" },
    el("strong", {}, "Missing or damaged, and left out:"),
    el(
      "ul",
      {},
      run.damaged.map((text) => el("li", {}, printable(text))),
    ),
  );
}

function factsOf(run, open) {
  const rows = run.facts.map(([name, text]) =>
    el("tr", {}, el("th", { scope: "row" }, printable(name)), el("td", {}, printable(text))),
  );
  return el(
    "details",
    { open },
    el("summary", {}, "What was run"),
    el("div", { class: "scrolls" }, el("table", { class: "facts" }, el("tbody", {}, rows))),
  );
}
