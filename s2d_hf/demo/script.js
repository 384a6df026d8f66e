// A browser may not play what can be analysed (AVI, HEVC, ...): say so in the place of the picture, where Gradio would
// raise an alarm.
document.addEventListener("error", (event) => {
  if (event.target.tagName !== "VIDEO") return;
  event.stopImmediatePropagation();
  event.target.parentElement.classList.add("s2d-unplayable");
}, true);
document.addEventListener("loadeddata", (event) => {
  event.target.parentElement?.classList.remove("s2d-unplayable");
}, true);
