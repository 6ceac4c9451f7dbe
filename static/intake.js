// Takes a picture from the file chooser, the camera, a drop anywhere on the page, or a paste.

import { clearError, say, sayError } from "./notices.js";

const LOOKS_LIKE_ADDRESS = /^\s*(https?|ftp|file|data|blob):\S+\s*$/i;
const ADDRESS = "That is the address of a picture on another site. Save the picture first, then drop the file here.";
const FOLDER = "That is a folder. Open it and drop one of its pictures.";
const FIELD = "input:not([type=file]), textarea";

/** Calls `use(file)` for each picture. */
export function takePictures(use) {
  document.addEventListener("change", (event) => {
    const input = event.target;
    if (!input.matches("#bar input[type=file]") || !input.files.length) return;
    const file = input.files[0];
    input.value = ""; // so that choosing the same file again counts as a change
    use(file);
  });

  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    const text = event.clipboardData.getData("text/plain");
    const isWords = event.target.closest(FIELD) && text && !LOOKS_LIKE_ADDRESS.test(text); // text for the field
    if (isWords || !(files.length || LOOKS_LIKE_ADDRESS.test(text))) return;
    event.preventDefault();
    useFirst(files, use, ADDRESS);
  });

  let depth = 0; // dragenter and dragleave fire for every element on the way
  const dragging = (on) => document.documentElement.classList.toggle("is-dragging", on);
  let isOurs = false; // a picture or link of this page is dragged
  addEventListener("dragstart", () => (isOurs = true));
  addEventListener("dragend", () => (isOurs = false));
  // A picture from another page may arrive as an address without a file, and the browser would go to that address.
  const isForUs = ({ dataTransfer, target }) =>
    !isOurs && (dataTransfer?.types.includes("Files") || (dataTransfer?.types.length > 0 && !target.closest?.(FIELD)));

  addEventListener("dragenter", (event) => {
    if (!isForUs(event)) return;
    event.preventDefault();
    depth += 1;
    dragging(true);
  });
  addEventListener("dragover", (event) => {
    if (!isForUs(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  addEventListener("dragleave", (event) => {
    if (!isForUs(event)) return;
    depth = Math.max(0, depth - 1);
    dragging(depth > 0);
  });
  addEventListener("drop", (event) => {
    depth = 0;
    dragging(false);
    if (!isForUs(event)) return;
    event.preventDefault();
    const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file");
    const files = items.filter((item) => !item.webkitGetAsEntry()?.isDirectory).map((item) => item.getAsFile());
    useFirst(files, use, items.length ? FOLDER : isAddress(event.dataTransfer) ? ADDRESS : "That was not a picture. Drop a picture file.");
  });
}

const isAddress = (data) => data.types.includes("text/uri-list") || LOOKS_LIKE_ADDRESS.test(data.getData("text/plain"));

/** Uses the first picture among the files, or else the first file; shows the message `otherwise` if there is none. */
function useFirst(files, use, otherwise) {
  clearError();
  const file = files.find(({ type }) => type.startsWith("image/")) ?? files[0];
  if (!file) {
    sayError(otherwise);
    return;
  }
  if (files.length > 1) say(`Only ${file.name} is used: you can search with one picture at a time.`);
  use(file);
}
