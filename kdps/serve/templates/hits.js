// Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
element.addEventListener("click", (event) => {
  const hit = event.target.closest(".hit");
  if (hit) trigger("select", {hit: Number(hit.dataset.hit)});
});
