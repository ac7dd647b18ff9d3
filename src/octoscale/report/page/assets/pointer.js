// What the pointer and the keys do in the map.

function listen(canvas, map, draw) {
  const tensorAt = (event) => {
    const box = canvas.getBoundingClientRect();
    return map.at(event.clientX - box.left, event.clientY - box.top);
  };
  const open = (tensor) =>
    set({ view: "tensor", module: tensor.module, role: tensor.role, source: map.source.label, step: String(map.step) });
  canvas.addEventListener("pointermove", (event) => {
    const tensor = tensorAt(event);
    canvas.style.cursor = tensor ? "pointer" : "default";
    if (tensor) showTip(event, map.told(tensor));
    else hideTip();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const tensor = tensorAt(event);
    if (tensor) open(tensor);
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && map.cursor) open(map.cursor);
    if (!way) return;
    event.preventDefault();
    event.stopPropagation();
    const tensor = map.move(...way);
    draw();
    const box = canvas.getBoundingClientRect(),
      line = map.lines.find((each) => each.tensors.includes(tensor));
    showTip({ clientX: box.left + map.x(tensor), clientY: box.top + line.y }, map.told(tensor));
  });
  canvas.addEventListener("blur", hideTip);
}
