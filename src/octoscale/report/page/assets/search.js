// Search by module name, and the keys of the page.

const SUGGESTED = 12;

/** A field that lists modules as one types; Enter or a click opens the tensor. */
function searchBox(page) {
  const list = el("ul", { role: "listbox", id: "suggested" });
  list.hidden = true;
  let chosen = 0,
    matches = [];
  const field = el("input", {
    type: "search",
    id: "search",
    placeholder: "Find a module  ( / )",
    autocomplete: "off",
    spellcheck: "false",
    role: "combobox",
    "aria-expanded": "false",
    "aria-controls": "suggested",
    "aria-label": "Find a module",
  });
  const close = () => {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
  };
  const open = (match) => {
    close();
    field.value = "";
    field.blur();
    set({
      view: "tensor",
      source: match.source.label,
      module: match.module,
      role: match.source.byName.has(key(match.module, state.role)) ? state.role : "",
    });
  };
  const show = () => {
    matches = find(page, field.value);
    chosen = Math.min(chosen, Math.max(0, matches.length - 1));
    list.replaceChildren(
      ...matches.map((match, at) =>
        el(
          "li",
          {
            role: "option",
            "aria-selected": String(at === chosen),
            onpointerdown: (event) => {
              event.preventDefault();
              open(match);
            },
          },
          named(match.module),
        ),
      ),
    );
    if (field.value && !matches.length) list.replaceChildren(el("li", { class: "quiet" }, "no module is called so"));
    list.hidden = !field.value;
    field.setAttribute("aria-expanded", String(!list.hidden));
  };
  field.addEventListener("input", () => {
    chosen = 0;
    show();
  });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      field.value = "";
      close();
      field.blur();
    }
    if (event.key === "Enter" && matches[chosen] && field.value) open(matches[chosen]);
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by) {
      event.preventDefault();
      chosen = Math.max(0, Math.min(matches.length - 1, chosen + by));
      show();
    }
  });
  return el("div", { class: "search" }, field, list);
}

/** Modules of the chosen source first: those whose names hold all words, the shortest first. */
function find(page, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = new Map();
  for (const source of [page.source(), ...page.sources].filter(Boolean)) {
    for (const { module } of source.tensors) {
      if (!found.has(module) && words.every((word) => module.toLowerCase().includes(word)))
        found.set(module, { module, source });
    }
  }
  return [...found.values()].sort((a, b) => a.module.length - b.module.length).slice(0, SUGGESTED);
}

const KEYS = [
  ["1 to 5", "Found, Map, Tensor, Run, Table"],
  ["← →", "one bin of steps back or on"],
  ["space", "play, and stop"],
  ["/", "find a module"],
  ["d", "dark or light"],
  ["?", "this help"],
  ["arrows, Enter", "in the map: from cell to cell, open a tensor"],
];

function showHelp() {
  const dialog = document.getElementById("help");
  dialog.replaceChildren(
    el("h2", {}, "Keys"),
    el(
      "table",
      {},
      el(
        "tbody",
        {},
        KEYS.map(([press, does]) => el("tr", {}, el("th", { scope: "row" }, el("kbd", {}, press)), el("td", {}, does))),
      ),
    ),
    el("p", { class: "quiet" }, "The address holds what is shown: copy it to share the view."),
    el("button", { type: "button", onclick: () => dialog.close() }, "Close"),
  );
  dialog.showModal();
}

/** page.shown: the view, which may have a slider. */
function listenToKeys(page) {
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input:not([type=range]), select, textarea, dialog[open]"); // a closed one may keep the focus
    if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
    const view = VIEWS[Number(event.key) - 1];
    if (view) set({ view: view.name });
    else if (event.key === "/") document.getElementById("search").focus();
    else if (event.key === "?") showHelp();
    else if (event.key === "d") set({ theme: isDark() ? "light" : "dark" }, true);
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight")
      page.shown?.step?.(event.key === "ArrowLeft" ? -1 : 1);
    else if (event.key === " " && !event.target.closest("button, a, summary")) page.shown?.play?.();
    else return;
    event.preventDefault();
  });
}
