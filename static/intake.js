// A picture comes in by the chooser, by dropping it anywhere, or by pasting it.

import { clearError, sayError } from "./notices.js";

/** Calls `use(file)` for each picture that comes in. */
export function takePictures(use) {
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (!input.matches("#bar input[type=file]") || !input.files.length) return;
    const file = input.files[0];
    input.value = ""; // choosing the same file again is a change again
    use(file);
  });

  document.addEventListener("paste", (event) => {
    if (event.target.closest("input:not([type=file]), textarea")) return;
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    useOne(files, use);
  });

  let depth = 0; // enter and leave come for every element on the way
  const dragging = (on) => document.documentElement.classList.toggle("is-dragging", on);
  let isOurs = false; // a picture or link of this very page is dragged
  addEventListener("dragstart", () => (isOurs = true));
  addEventListener("dragend", () => (isOurs = false));
  const carriesPicture = (event) => {
    const kinds = event.dataTransfer?.types ?? [];
    if (kinds.includes("Files")) return true;
    // From another page a picture may come as its address, without a file: the browser would leave for it.
    return !isOurs && kinds.includes("text/uri-list") && !event.target.closest?.("input, textarea");
  };

  addEventListener("dragenter", (event) => {
    if (!carriesPicture(event)) return;
    event.preventDefault();
    depth += 1;
    dragging(true);
  });
  addEventListener("dragover", (event) => {
    if (!carriesPicture(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("dragleave", (event) => {
    if (!carriesPicture(event)) return;
    depth = Math.max(0, depth - 1);
    dragging(depth > 0);
  });
  addEventListener("drop", (event) => {
    depth = 0;
    dragging(false);
    if (!carriesPicture(event)) return;
    event.preventDefault();
    useOne([...event.dataTransfer.files], use);
  });
}

function useOne(files, use) {
  clearError();
  if (!files.length) {
    sayError("That was no file. Drop a picture file, or copy the picture itself and paste it.");
  } else if (files.length > 1) {
    sayError("More than one picture came at once. Search by one picture at a time.");
  } else {
    use(files[0]);
  }
}
