// Load more: asks for a larger number of pictures, or at the largest for those that follow, and adds those that are not
// there yet. What is there stays put.

import { clearError, sayError, setBusy } from "./notices.js";
import { fetchPage, onLeave, Refusal } from "./pages.js";
import { freezeRow, releaseRows } from "./rows.js";
import { askMore, currentFile } from "./search.js";

export function loadMoreOnClick() {
  document.addEventListener("click", (event) => {
    const control = event.target.closest(".more a, .more button");
    // Two rankings are marked by what the other holds, and groups are no pictures: they come whole.
    if (!control || control.matches("[data-whole]") || event.defaultPrevented || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    if (control.getAttribute("aria-busy")) return;
    loadMore(control);
  });
  releaseRows();
}

async function loadMore(control) {
  const main = document.getElementById("main");
  const file = currentFile();
  const byKeyboard = control.matches(":focus-visible");
  const mine = new AbortController();
  const { signal } = mine;
  onLeave(main, () => mine.abort());
  control.setAttribute("aria-busy", "true");
  setBusy(true, mine);
  clearError();
  try {
    const { k, cursor, larger } = control.dataset;
    const address = larger ?? control.href;
    const page = await (file ? askMore(k ? { k } : { cursor }, signal) : fetchPage(address, { signal }));
    if (!file && !new URL(address, location).searchParams.has("cursor")) history.replaceState(history.state, "", address);
    const first = append(main, page);
    if (byKeyboard) first?.querySelector("a.picture").focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return; // another search has come between
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
  } finally {
    control.removeAttribute("aria-busy"); // Back may bring it again
    setBusy(false, mine);
  }
}

/** Adds the new pictures of `page`, and takes over its count and its way on. */
function append(main, page) {
  const gallery = main.querySelector(".gallery");
  const there = new Set([...gallery.children].map((card) => card.id));
  const fresh = [...page.querySelectorAll(".gallery > .card")].filter((card) => !there.has(card.id));
  const fill = freezeRow(gallery);
  gallery.append(...fresh);
  fill(fresh);
  for (const part of [".more", "[data-count]"]) {
    const now = main.querySelector(part);
    const next = page.querySelector(part);
    if (next) now?.replaceWith(next);
    else now?.remove();
  }
  if (main.querySelector(".results")) carryOn(page);
  return fresh[0];
}

/** All that leads on from the results takes their new number along; it stays where it is, for it may have the focus. */
function carryOn(page) {
  const [k, next] = [document, page].map((one) => one.querySelector(".upload select[name=k]"));
  const { value } = next;
  k.replaceChildren(...next.children);
  k.value = value;
  for (const part of [".choices", ".indexes", ".filter"]) leadAs(document.querySelector(part), page.querySelector(part));
  for (const card of page.querySelectorAll(".gallery > .card")) leadAs(document.getElementById(card.id), card);
}

/** The links of a part lead where those of the same part of another page do. */
function leadAs(part, other) {
  const links = other?.querySelectorAll("a") ?? [];
  part?.querySelectorAll("a").forEach((link, at) => {
    for (const name of ["href", "data-again"]) {
      const address = links[at]?.getAttribute(name);
      if (address) link.setAttribute(name, address);
    }
  });
}
