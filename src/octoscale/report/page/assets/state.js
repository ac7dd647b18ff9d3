// The state of the page is the fragment of its address: a link shows what was seen. Elements hold texts, never markup.
// What may be several stands there several times.

const DEFAULTS = {
  view: "found",
  source: "",
  against: [],
  quantity: "scale_bias",
  step: "",
  module: "",
  role: "",
  theme: "",
  scaled: "",
  sort: "",
  find: "",
  only: "",
  of: "",
  kind: "",
};

/** What the page shows, and who wants to know when that changes. */
const state = { ...DEFAULTS };
const watchers = [];

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, usual] of Object.entries(DEFAULTS))
    state[name] = Array.isArray(usual) ? given.getAll(name) : (given.get(name) ?? usual);
}

function fragment(changes = {}) {
  const all = Object.entries({ ...state, ...changes }).filter(([name, value]) => value !== DEFAULTS[name]);
  const given = all.flatMap(([name, value]) => [value].flat().map((each) => [name, each])).filter(([, each]) => each !== "");
  return "#" + new URLSearchParams(given).toString();
}

/** Change the state. keep: in place of the last entry of the browser's history, as a slider does. */
function set(changes, keep = false) {
  Object.assign(state, changes);
  history[keep ? "replaceState" : "pushState"](null, "", fragment());
  watchers.forEach((watcher) => watcher(changes));
}

/** An element with attributes, listeners (`onclick`) and children; texts become text nodes. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A labelled choice. options: [value, label] pairs. */
function choice(label, value, options, change) {
  const made = el(
    "select",
    { onchange: (event) => change(event.target.value), "aria-label": label },
    options.map(([each, text]) => el("option", { value: each, selected: each === value }, text)),
  );
  return el("label", { class: "field" }, el("span", {}, label), made);
}

/** A link to a state of the page. */
function linkTo(changes, ...children) {
  return el(
    "a",
    {
      href: fragment(changes),
      onclick: (event) => {
        event.preventDefault();
        set(changes);
      },
    },
    ...children,
  );
}

/** A name, whole on hover; `wbr` after each dot, so that long ones break there. */
function named(text) {
  const shown = printable(text);
  const parts = shown.length < 300 ? shown.split(/(?<=[._/])/) : [shown];
  return el(
    "code",
    { class: "name", title: shown.slice(0, 2000) },
    parts.flatMap((part) => [part, el("wbr")]),
  );
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Paper is white, whatever the screen is. */
let isOnPaper = false;

function isDark() {
  if (isOnPaper) return false;
  return state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function applyTheme() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
}

/** The small window beside the pointer. lines: texts, the first one strong. */
function showTip(event, lines) {
  const tip = document.getElementById("tip");
  tip.replaceChildren(...lines.map((line, at) => el(at ? "div" : "strong", {}, line)));
  tip.hidden = false;
  const { clientX: x, clientY: y } = event;
  const left = x + 14 + tip.offsetWidth > innerWidth ? x - tip.offsetWidth - 10 : x + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - tip.offsetHeight - 4))}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
