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

/** Which scaling of which run, and what it is compared with. */
function sourceChoices(page) {
  if (page.sources.length < 2) return [];
  const labels = page.sources.map((source) => [source.label, printable(source.label)]);
  return [
    choice(page.runs.length > 1 ? "Run and scaling" : "Scaling", page.source().label, labels, (source) =>
      set({ source }),
    ),
    choice(
      "Compare with",
      page.against()?.label ?? "",
      [["", "nothing"], ...labels.filter(([label]) => label !== page.source().label)],
      (against) => set({ against }),
    ),
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
