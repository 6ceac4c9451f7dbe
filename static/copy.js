// Copies text to the clipboard: a path, a command, the address of the results.

import { say } from "./notices.js";

export function copyOnClick() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action=copy]");
    if (button) copy(button.dataset.copy, `Copied: ${button.dataset.copy}`);
  });
}

/** Copies text, then shows the message `done`. */
export async function copy(text, done) {
  try {
    await navigator.clipboard.writeText(text);
    say(done);
  } catch {
    // Only pages on https or on this machine may write to the clipboard. Elsewhere, execCommand may still work.
    say(copyBySelection(text) ? done : `Please copy this by hand: ${text}`);
  }
}

function copyBySelection(text) {
  const box = document.createElement("textarea");
  const before = document.activeElement;
  box.value = text;
  box.setAttribute("readonly", "");
  box.className = "unseen";
  (before?.closest("[aria-modal]") ?? document.body).append(box); // outside an open dialog, nothing can be selected
  box.select();
  const done = document.execCommand("copy");
  box.remove();
  before?.focus({ preventScroll: true });
  return done;
}
