// The slider over bins of steps, with play; Map and Tensor have the same one.

function stepSlider(source) {
  const { scales } = source,
    last = scales.bins.length - 1;
  let timer = null;
  const go = (bin) => set({ step: bin >= last ? "" : String(scales.bins[Math.max(0, bin)]) }, true);
  const range = el("input", {
    type: "range",
    min: 0,
    max: last,
    step: 1,
    "aria-label": "Step",
    oninput: () => go(Number(range.value)),
  });
  const told = el("output", {});
  const button = el("button", { type: "button", class: "play", "aria-label": "Play", onclick: () => play() }, "▶");
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶";
    button.setAttribute("aria-label", "Play");
  };
  const play = () => {
    if (timer) return stop();
    if (Number(range.value) >= last) go(0);
    button.textContent = "❚❚";
    button.setAttribute("aria-label", "Pause");
    timer = setInterval(
      () => {
        if (!button.isConnected || Number(range.value) >= last) return stop();
        go(Number(range.value) + 1);
      },
      Math.max(60, Math.min(500, 10000 / (last + 1))),
    );
  };
  const show = (bin) => {
    range.value = String(bin);
    const of = `${scales.stepsOf(bin)} (last: ${count(scales.last_step)})`;
    told.textContent = of;
    range.setAttribute("aria-valuetext", of);
  };
  const box = el("div", { class: "slider" }, button, range, told);
  box.hidden = last < 1;
  /** A slider of the same steps, and more, was playing. */
  const goOn = (wasPlaying) => {
    if (wasPlaying && state.step !== "") play();
  };
  return { box, show, play, goOn, isPlaying: () => timer !== null, by: (bins) => go(Number(range.value) + bins) };
}
