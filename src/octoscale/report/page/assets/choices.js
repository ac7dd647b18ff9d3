// What the views ask for: which source, what it is compared with, which quantity; and what they say where there is none.

function nothingRecorded(root) {
  root.append(
    el("p", { class: "lead" }, "These runs recorded no scales."),
    el(
      "p",
      { class: "quiet" },
      "FP8 layers record theirs while a run goes on; runs in bf16, fp16 and fp32 have none. The views Found and Run show what there is.",
    ),
  );
}

/** Which scaling of which run, and what it is compared with. several: any number of others, else one. */
function sourceChoices(page, several = false) {
  if (page.sources.length < 2) return [];
  const labels = page.sources.map((source) => [source.label, printable(source.label)]);
  const own = page.source().label;
  return [
    choice(page.runs.length > 1 ? "Run and scaling" : "Scaling", own, labels, (source) => set({ source })),
    ...(several ? otherChoices(page, labels) : [otherChoice(page, labels)]),
  ];
}

function otherChoice(page, labels) {
  const others = labels.filter(([label]) => label !== page.source().label);
  return choice("Compare with", page.against()[0]?.label ?? "", [["", "nothing"], ...others], (label) =>
    set({ against: label ? [label] : [] }),
  );
}

/** A list from which one more can be taken, and those that are chosen, each with the look of its lines; a click leaves
 * one out. */
function otherChoices(page, labels) {
  const chosen = page.against().map((source) => source.label),
    left = labels.filter(([label]) => label !== page.source().label && !chosen.includes(label));
  const marked = (label, at) =>
    el(
      "button",
      {
        type: "button",
        class: "chosen",
        "aria-label": `Leave out ${printable(label)}`,
        title: "Leave it out",
        onclick: () => set({ against: chosen.filter((each) => each !== label) }),
      },
      lineMark(at + 1),
      el("span", {}, printable(label)),
      el("span", { "aria-hidden": "true" }, "×"),
    );
  return [
    left.length
      ? choice("Compare with", "", [["", chosen.length ? "one more …" : "nothing"], ...left], (label) =>
          set({ against: [...chosen, label] }),
        )
      : null,
    chosen.length ? el("span", { class: "group", role: "group", "aria-label": "Compared" }, chosen.map(marked)) : null,
  ];
}

function quantityChoice(source) {
  return choice(
    "Quantity",
    state.quantity,
    quantitiesOf(source.scales).map(([name, { label }]) => [name, label]),
    (quantity) => set({ quantity }),
  );
}
