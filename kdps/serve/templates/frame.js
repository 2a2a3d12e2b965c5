// Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
const close = () => trigger("clear");
element.addEventListener("click", (event) => {
  if (event.target.closest(".close") || event.target.matches(".overlay")) close();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && element.querySelector(".overlay")) close();
});
watch("value", () => element.querySelector(".close")?.focus());
