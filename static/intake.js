// A picture comes in by the chooser, by dropping it anywhere, or by pasting it.

import { clearError, sayError } from "./notices.js";

/** Calls `use(file)` for each picture that comes in. */
export function takePictures(use) {
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (!input.matches(".upload input[type=file]") || !input.files.length) return;
    const file = input.files[0];
    input.value = ""; // choosing the same file again is a change again
    use(file);
  });

  document.addEventListener("submit", (event) => {
    if (event.target.matches(".upload")) event.preventDefault(); // the chooser has searched already
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
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth += 1;
    dragging(true);
  });
  addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth = Math.max(0, depth - 1);
    dragging(depth > 0);
  });
  addEventListener("drop", (event) => {
    depth = 0;
    dragging(false);
    if (!carriesFiles(event)) return;
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
