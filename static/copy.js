// Copies a text: a path, a command, the address of the results.

import { say } from "./notices.js";

export function copyOnClick() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action=copy]");
    if (button) copy(button.dataset.copy, `Copied: ${button.dataset.copy}`);
  });
}

/** Copies a text, then says `done`. */
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    // Only pages on https or on this machine may write to the clipboard; elsewhere the old way may still work.
    say(copyBySelection(text) ? done : `Please copy this by hand: ${text}`);
  }
}

function copyBySelection(text) {
  const box = document.createElement("textarea");
  const before = document.activeElement;
  box.value = text;
  box.setAttribute("readonly", "");
  box.className = "unseen";
  (before?.closest("[aria-modal]") ?? document.body).append(box); // beyond a dialog, nothing can be selected
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  before?.focus({ preventScroll: true });
  return done;
}
