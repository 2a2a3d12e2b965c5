// Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
// Tells which person is clicked or which box is drawn, in shares of the scene's size.
let start = null;
const stage = () => element.querySelector(".stage");
const mark = (chosen) => {
  element.querySelectorAll(".person").forEach((e) => e.classList.toggle("chosen", e === chosen));
};
const point = (event) => {
  const place = stage().getBoundingClientRect();
  const share = (value) => Math.min(1, Math.max(0, value));
  return [share((event.clientX - place.left) / place.width),
          share((event.clientY - place.top) / place.height)];
};
const corners = (event) => {
  const [x, y] = point(event);
  return [Math.min(x, start[0]), Math.min(y, start[1]),
          Math.max(x, start[0]), Math.max(y, start[1])];
};
element.addEventListener("click", (event) => {
  const draw = event.target.closest(".draw");
  const person = event.target.closest(".person");
  if (draw) {
    const drawing = stage().classList.toggle("drawing");
    draw.setAttribute("aria-pressed", drawing);
  } else if (person) {
    mark(person);
    element.querySelector(".band").hidden = true;
    trigger("select", {person: Number(person.dataset.person)});
  }
});
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".drawing")) return;
  event.preventDefault();
  stage().setPointerCapture(event.pointerId);
  start = point(event);
});
element.addEventListener("pointermove", (event) => {
  if (!start) return;
  const [x0, y0, x1, y1] = corners(event);
  const band = element.querySelector(".band");
  Object.assign(band.style, {left: `${100 * x0}%`, top: `${100 * y0}%`,
    width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%`});
  band.hidden = false;
});
element.addEventListener("pointerup", (event) => {
  if (!start) return;
  const box = corners(event);
  start = null;
  mark(null);
  trigger("select", {box});
});
