// Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
// Sends the chosen image as text in an event, so that the server never makes a file of it.
const refuse = (text) => {
  const place = element.querySelector(".refused");
  place.textContent = text;
  place.hidden = !text;
};
const take = (file) => {
  const input = element.querySelector("input");
  if (!file) return;
  const limit = Number(input.dataset.limit);
  if (!input.accept.split(",").includes(file.type)) {
    return refuse(`${file.name} is not an image of the kinds named above.`);
  }
  if (file.size > limit) {
    return refuse(`${file.name} is larger than ${limit / 1e6} MB.`);
  }
  refuse("");
  const reader = new FileReader();
  reader.onload = () => trigger("upload", {data: reader.result});
  reader.readAsDataURL(file);
};
element.addEventListener("change", (event) => {
  take(event.target.files[0]);
  // The same file can be chosen again.
  event.target.value = "";
});
const over = (event, inside) => {
  event.preventDefault();
  element.querySelector(".drop").classList.toggle("over", inside);
};
element.addEventListener("dragover", (event) => over(event, true));
element.addEventListener("dragleave", (event) => over(event, false));
element.addEventListener("drop", (event) => {
  over(event, false);
  take(event.dataTransfer.files[0]);
});
