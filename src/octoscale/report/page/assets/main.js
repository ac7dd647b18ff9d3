// Puts the page together: data, state, views. Other files only define what is used here.

const VIEWS = [
  { name: "found", label: "Found", title: "What was found", make: foundView },
  { name: "map", label: "Map", title: "Map of the scales", make: mapView },
  { name: "tensor", label: "Tensor", title: "One tensor", make: tensorView },
  { name: "run", label: "Run", title: "The run over its steps", make: runView },
  { name: "table", label: "Table", title: "Every tensor", make: tableView },
];
const REBUILDS = ["view", "source", "against", "module", "role", "theme", "scaled"];

class Page {
  /** isHeld: whether this is no moment for it; what came is shown later. */
  async take(data, isHeld = () => false) {
    const runs = await unpackAll(data.runs);
    while (isHeld()) await new Promise((done) => setTimeout(done, 50));
    this.runs = runs.map((run) => ({ ...run, scales: new Scales(run.scales) }));
    this.sources = sourcesOf(this.runs);
    this.made = data.made;
    this.isLive = data.live;
    this.build(document.activeElement?.matches("#search"));
  }

  /** The source that the state names, else the first one that adapts, else the first. */
  source() {
    return (
      this.sources.find((source) => source.label === state.source) ??
      this.sources.find((source) => !source.scaling.startsWith("cscale")) ??
      this.sources[0]
    );
  }

  /** The sources that it is compared with, in the order in which they were chosen; where only one can be, the first. */
  against() {
    const named = [...new Set(state.against)].map((label) => this.sources.find((source) => source.label === label));
    return named.filter((source) => source && source !== this.source());
  }

  /** keepsHead: somebody types there. */
  build(keepsHead = false) {
    const focus = focusNow(),
      doing = this.shown?.doing?.();
    applyTheme();
    hideTip();
    if (!keepsHead) this.head();
    const view = VIEWS.find((each) => each.name === state.view) ?? VIEWS[0];
    document.getElementById("views").replaceChildren(
      ...VIEWS.map((each, at) =>
        el(
          "button",
          {
            type: "button",
            role: "tab",
            "aria-selected": String(each === view),
            title: `${each.title} (${at + 1})`,
            onclick: () => set({ view: each.name }),
          },
          each.label,
        ),
      ),
    );
    const root = document.getElementById("view");
    const top = scrollY,
      isSame = root.dataset.view === view.name;
    forgetPlots();
    root.dataset.view = view.name;
    root.replaceChildren(el("h1", {}, view.title));
    this.shown = view.make(root, this) ?? null;
    scrollTo(0, isSame ? top : 0);
    document.getElementById("foot").replaceChildren(...this.foot());
    if (isSame) this.shown?.goOn?.(doing);
    giveFocus(focus);
  }

  changed(changes) {
    if (Object.keys(changes).some((name) => REBUILDS.includes(name))) this.build();
    else this.shown?.update?.(changes);
  }

  head() {
    const names = this.runs.map((run) => printable(run.label)).join(", ");
    document.title = `${names}: octoscale`;
    const theme = el(
      "button",
      {
        type: "button",
        id: "theme",
        "aria-label": isDark() ? "Light colors" : "Dark colors",
        title: "Dark or light (d)",
        onclick: () => set({ theme: isDark() ? "light" : "dark" }, true),
      },
      isDark() ? "☀" : "☾",
    );
    const help = el("button", { type: "button", "aria-label": "Help", title: "Keys (?)", onclick: showHelp }, "?");
    const status = this.isLive ? el("span", { id: "live", class: "chip", role: "status" }, "…") : null;
    document
      .getElementById("top")
      .replaceChildren(
        el(
          "div",
          { class: "brand" },
          el("strong", {}, "octoscale"),
          el("span", { class: "names", title: names.slice(0, 2000) }, names),
          status,
        ),
        searchBox(this),
        el("div", { class: "buttons" }, theme, help),
      );
    if (this.isLive) this.heard(this.news ?? { state: this.runs[0].state });
  }

  foot() {
    const records = this.runs.reduce((sum, run) => sum + run.scales.records, 0);
    return [
      el("span", {}, `octoscale ${this.made.version}, ${this.made.when}. ${count(records)} records. `),
      el("details", {}, el("summary", {}, "Licences"), el("pre", {}, this.made.licences)),
    ];
  }

  /** What the server says of the run; null: it does not answer, which of a run that has ended is no loss. */
  heard(news) {
    const shown = this.runs[0].state,
      hasEnded = news === null && !["running", "not begun"].includes(shown.name);
    this.news = news;
    const status = document.getElementById("live");
    if (!status) return;
    const { name, text } = hasEnded ? shown : (news?.state ?? { name: "gone", text: "" });
    status.className = `chip ${name}`;
    status.textContent =
      name === "gone"
        ? "no answer: the server has ended"
        : name === "running"
          ? ["live", ...lastSign(this.runs[0])].join(", ")
          : name;
    status.title = printable(text);
  }
}

/** Where a run is: the last step of its casts; of its losses, if none was recorded; nothing before there is any. */
function lastSign({ scales, series }) {
  if (scales.last_step >= 0) return [`${scales.unit} ${count(scales.last_step)}`];
  return series.slice(0, 1).map((line) => `${line.unit} ${count(line.x.at(-1))}`);
}

async function begin() {
  const page = new Page();
  const data = JSON.parse(document.getElementById("data").textContent);
  readFragment();
  applyTheme();
  await page.take(data);
  watchers.push((changes) => page.changed(changes));
  addEventListener("popstate", () => {
    readFragment();
    page.build();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.build());
  for (const [name, onPaper] of [
    ["beforeprint", true],
    ["afterprint", false],
  ]) {
    addEventListener(name, () => {
      isOnPaper = onPaper;
      page.build();
    });
  }
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      page.shown?.resize?.();
    }
  });
  listenToKeys(page);
  document.documentElement.dataset.ready = "yes";
  if (data.live) follow(page, data.version);
}

begin().catch((error) => {
  document
    .getElementById("view")
    .replaceChildren(el("p", {}, `The page could not be drawn: ${error.message}. It needs a browser from 2023 on.`));
  throw error;
});
