// + and - on a picture: the ranking changes at once. What was said stands in the address, so Back takes it back.

import { clearError, say, sayError, setBusy } from "./notices.js";
import { fetchPage, onLeave, Refusal, showPage } from "./pages.js";
import { askAgain, currentAddress, currentFile, stopSearch } from "./search.js";

let pending; // {address, controller} of a ranking that is on its way

export function judgeOnClick() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-judge]");
    const plain = !event.defaultPrevented && event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey);
    if (!link || !plain) return;
    event.preventDefault();
    judge(link);
  });
  addEventListener("popstate", stopJudging);
}

export function stopJudging() {
  pending?.controller.abort();
}

/** A second word before the first one's ranking has come counts together with the first. */
function addressAfter({ judge, id }) {
  const address = new URL(pending?.address ?? currentAddress());
  const { searchParams } = address;
  searchParams.delete("cursor");
  for (const name of ["like", "dislike"]) {
    const kept = judge === "clear" ? [] : searchParams.getAll(name).filter((other) => other !== id);
    searchParams.delete(name);
    for (const other of kept) searchParams.append(name, other);
  }
  if (judge === "like" || judge === "dislike") searchParams.append(judge, id);
  else if (!searchParams.has("like") && !searchParams.has("dislike")) searchParams.delete("rule");
  return address;
}

async function judge(link) {
  const address = addressAfter(link.dataset);
  if (!currentFile() && !["id", "like", "dislike"].some((name) => address.searchParams.has(name))) {
    location.assign(link.href); // nothing is left to search by
    return;
  }
  const place = placeOf(document.activeElement);
  const top = scrollY;
  stopSearch();
  stopJudging();
  clearError();
  const mine = (pending = { address, controller: new AbortController() });
  onLeave(document.getElementById("main"), () => mine.controller.abort()); // a newer search has been answered first
  setBusy(true, mine);
  try {
    const { signal } = mine.controller;
    if (currentFile()) await askAgain(address, { signal, top });
    else showPage(await fetchPage(address, { signal }), address, { top });
    focusPlace(place);
    say(document.querySelector(".rule")?.firstChild.textContent.trim() ?? "Ranked by the picture alone.");
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
  } finally {
    if (pending === mine) pending = undefined;
    setBusy(false, mine);
  }
}

/** Where the focus is among the pictures: at which one, and on what of it. */
function placeOf(element) {
  const at = [...document.querySelectorAll(".gallery > .card")].indexOf(element?.closest(".card"));
  return { at, action: element?.closest("[data-action]")?.dataset.action };
}

/** The picture that has moved up to that place; the heading, where there is none. */
function focusPlace({ at, action }) {
  const card = document.querySelectorAll(".gallery > .card")[at];
  const found = (action && card?.querySelector(`.caption [data-action=${action}]`)) || card?.querySelector("a.picture");
  (found ?? document.querySelector(".found h1"))?.focus({ preventScroll: true });
}
