// What a rebuilt page gives back to whoever is using it: the focus, the caret, and what the view itself was doing.

/** Where the focus is, as elements made anew can be asked for it; null: nowhere. */
function focusNow() {
  const at = document.activeElement;
  if (!at || at === document.body) return null;
  const alike = likeThis(at);
  const caret = at.matches("input[type=search]") ? [at.selectionStart, at.selectionEnd] : null;
  return { alike, number: sameAs(alike).indexOf(at), caret };
}

/** Put the focus where it was; what is not there any more gets none. */
function giveFocus(before) {
  if (!before || document.activeElement !== document.body) return;
  const at = sameAs(before.alike)[before.number];
  at?.focus({ preventScroll: true });
  if (at && before.caret) at.setSelectionRange(...before.caret);
}

/** What tells an element from others: its place in the page and, of a control, its name. */
function likeThis(element) {
  const label = element.matches("canvas") ? null : element.getAttribute("aria-label");
  const text = element.matches("button, a, summary") ? element.textContent : null;
  return { selector: element.id ? `#${element.id}` : element.localName, label, text };
}

function sameAs({ selector, label, text }) {
  return [...document.querySelectorAll(selector)].filter(
    (each) =>
      (label === null || each.getAttribute("aria-label") === label) && (text === null || each.textContent === text),
  );
}

/**
 * Whether somebody is in the middle of what a rebuilt page would end: a pointer that is down, a list of choices that is
 * open. Browsers that do not tell of a list take it as open from a click on it to whatever comes next.
 */
function watchHands() {
  const tells = CSS.supports("selector(select:open)");
  let isDown = false,
    clicked = null;
  const listen = (names, does) => names.forEach((name) => addEventListener(name, does, true));
  listen(["pointerdown"], (event) => {
    isDown = event.button === 0;
    const list = event.target.closest?.("select") ?? null;
    clicked = list === clicked ? null : list;
  });
  listen(["pointerup", "pointercancel", "blur"], () => {
    isDown = false;
  });
  listen(["change", "focusout", "keydown"], () => {
    clicked = null;
  });
  const isOpen = () => (tells ? document.querySelector("select:open") !== null : (clicked?.isConnected ?? false));
  return () => isDown || isOpen();
}
