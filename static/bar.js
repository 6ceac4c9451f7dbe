// The query bar: a new picture replaces the previous one, and the rest of the query stays.

import { sayError } from "./notices.js";
import { current, go } from "./pages.js";
import { file as keptFile } from "./uploads.js";

/** Sets up the bar; returns a function that searches with a file. */
export function fillBar() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-crop]");
    if (!button) return;
    const chip = button.closest(".chip");
    const { key, src, box } = chip.dataset;
    // If the browser cannot show the file itself, use the small copy on the page.
    const sources = key ? [await keptFile(key), chip.querySelector("img")?.src] : [src];
    const { crop, WHOLE } = await import("./crop.js");
    const part = await crop(sources.filter(Boolean), box);
    if (part) go(changed({ box: part === WHOLE ? null : part }));
  });
  return searchBy;
}

function searchBy(file) {
  const { refusal } = document.getElementById("bar").dataset;
  if (refusal) sayError(refusal);
  else go(changed({ upload: null, id: null, box: null }), { file });
}

/** Returns the address of the query with some fields changed, from the first result on. */
function changed(fields) {
  const bar = document.getElementById("bar");
  const address = new URL(bar.action);
  const from = /\/search$/.test(current().pathname) ? current().searchParams : new FormData(bar);
  for (const [name, value] of from) {
    if (typeof value === "string" && value && name !== "cursor") address.searchParams.append(name, value);
  }
  if (bar.elements.q?.value) address.searchParams.set("q", bar.elements.q.value);
  for (const [name, value] of Object.entries(fields)) {
    if (value === null) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  return address;
}
