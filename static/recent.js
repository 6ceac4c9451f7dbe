// Recent searches under the bar: pictures and words, which stay in this browser.

import { say } from "./notices.js";
import { clear, noteWords, recent } from "./uploads.js";

const SHOWN = 12;

/** Records the words of each search, and shows recent searches when the field of the bar has the focus. */
export function showRecent() {
  const note = () => {
    const words = /\/search$/.test(location.pathname) && new URLSearchParams(location.search).get("q");
    if (words && document.querySelector(".results")) noteWords(words); // not after an error
  };
  note();
  document.addEventListener("page:shown", note);
  document.addEventListener("focusin", ({ target }) => {
    if (target.matches?.("#bar [name=q]")) open(target);
    else if (!target.closest?.("#bar")) close();
  });
  document.addEventListener("pointerdown", ({ target }) => target.closest?.("#bar") || close());
  document.addEventListener("keydown", ({ key }) => key === "Escape" && close());
  document.addEventListener("input", ({ target }) => target.matches("#bar [name=q]") && close());
}

function close() {
  document.getElementById("recent")?.remove();
}

async function open(field) {
  const searches = (await recent()).slice(0, SHOWN);
  if (!searches.length || document.activeElement !== field) return;
  close();
  const strip = document.createElement("div");
  strip.id = "recent";
  strip.setAttribute("role", "group");
  strip.setAttribute("aria-label", "Recent searches");
  strip.append(...searches.map((search) => linkTo(search, field.form.action)), clearButton(field));
  field.form.append(strip);
}

function linkTo({ key, name, picture, words }, action) {
  const link = document.createElement("a");
  link.href = `${action}?${new URLSearchParams(words ? { q: words } : { upload: key })}`;
  link.append(words ?? Object.assign(new Image(48, 48), { alt: name, title: name, src: picture }));
  return link;
}

function clearButton(field) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Clear" });
  button.addEventListener("click", async () => {
    await clear();
    field.focus();
    close();
    say("Your recent searches and pictures have been removed from this browser");
  });
  return button;
}
