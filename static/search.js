// Searches by a picture of one's own, without leaving the page. The server keeps nothing, so the file is held here for
// as long as its results are open: more of them are asked for by sending it again.

import { clearError, sayError, setBusy } from "./notices.js";
import { fetchPage, onReturn, Refusal, showPage } from "./pages.js";

const held = new WeakMap(); // the results on the page -> {file, address}
const PATIENCE = 140; // ms before the waiting state shows; most answers are there sooner
let running;

/** The file whose results are on the page, if they are those of a file. */
export function currentFile() {
  return held.get(document.getElementById("main"))?.file;
}

/** Asks for the results of the file that is searched by, with `k` pictures from here on, or for those that follow a
 * `cursor`; rejects with a Refusal. */
export async function askMore({ k, cursor }, signal) {
  const main = document.getElementById("main");
  const { file, address } = held.get(main);
  const more = new URL(address);
  if (k) more.searchParams.set("k", k);
  else more.searchParams.set("cursor", cursor);
  const page = await ask(file, more, signal);
  if (k && !signal.aborted) held.set(main, { file, address: more });
  return page;
}

/** Where the results on the page come from, with all that was chosen. */
export function currentAddress() {
  return held.get(document.getElementById("main"))?.address ?? new URL(location);
}

/** Shows what another address says of the file that is searched by, `top` px down; rejects with a Refusal. */
export async function askAgain(address, { signal, top }) {
  const { file } = held.get(document.getElementById("main"));
  showResults(await ask(file, address, signal), { file, address }, top);
}

function showResults(page, search, top = 0) {
  showPage(page, `${page.querySelector("a.brand").getAttribute("href")}#picture`, { top });
  held.set(document.getElementById("main"), search);
  usePicture(search.file);
}

/** Sends `file` to an address, what the address asks for as fields of the form. */
async function ask(file, address, signal) {
  const form = document.querySelector("form.upload");
  const most = Number(form?.dataset.maxBytes ?? Infinity);
  if (file.size > most) {
    throw new Refusal(`The picture is larger than ${Math.floor(most / 1e6)} MB. Save it smaller and try again.`);
  }
  const body = new FormData();
  body.append("image", file, file.name || "picture");
  for (const [name, value] of address.searchParams) body.append(name, value);
  return fetchPage(address.pathname, { method: "POST", body, signal });
}

/** Where a form leads, with what is filled in, less the picture itself. */
function addressOf(form) {
  const address = new URL(form.action);
  const fields = [...new FormData(form)].filter(([, value]) => typeof value === "string");
  for (const [name] of fields) address.searchParams.delete(name);
  for (const [name, value] of fields) address.searchParams.append(name, value); // of a filter, several have one name
  return address;
}

/** Searches by `file` as the form on the page says, or at another address; shows the results, or says why not. */
export async function searchBy(file, address) {
  stopSearch();
  clearError();
  const form = document.querySelector("form.upload");
  if (!address && form.dataset.refusal) {
    sayError(form.dataset.refusal);
    return;
  }
  address ??= addressOf(form);
  const mine = (running = new AbortController());
  const before = document.getElementById("main");
  setBusy(true, mine);
  const waiting = setTimeout(() => showWaiting(before, file), PATIENCE);
  const settle = () => {
    clearTimeout(waiting);
    if (running === mine) running = undefined;
    setBusy(false, mine);
    hideWaiting(before);
  };
  try {
    const page = await ask(file, address, mine.signal);
    settle();
    showResults(page, { file, address });
    document.querySelector(".found h1")?.focus({ preventScroll: true });
  } catch (error) {
    settle();
    if (!running) unchoose();
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
  }
}

/** The choices beside the results say what these are by, whatever was chosen on the way to others. */
function unchoose() {
  for (const form of document.querySelectorAll(".results form")) form.reset();
}

export function stopSearch() {
  running?.abort();
}

/** Another number of pictures, index or metric: the same search again, or the links of the first page. */
export function chooseAgain() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-again]:not([data-judge])");
    const plain = !event.defaultPrevented && event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey);
    if (!link || !plain || !currentFile()) return;
    event.preventDefault();
    searchBy(currentFile(), new URL(link.dataset.again, location));
  });
  document.addEventListener("change", (event) => {
    if (event.target.form?.matches("#sides")) {
      const address = addressOf(event.target.form);
      if (currentFile()) searchBy(currentFile(), address);
      else location.assign(address);
      return;
    }
    if (!event.target.matches(".upload select[name=k]")) return;
    const file = currentFile();
    const results = document.querySelector(".results[data-query=id]");
    if (file) {
      const address = new URL(currentAddress());
      address.searchParams.set("k", event.target.value);
      searchBy(file, address);
    } else if (results) {
      const address = new URL(location);
      address.searchParams.delete("cursor");
      address.searchParams.set("k", event.target.value);
      location.assign(address);
    } else {
      for (const link of document.querySelectorAll("a.picture, .more a")) {
        const address = new URL(link.href);
        address.searchParams.set("k", event.target.value);
        link.href = address;
      }
    }
  });
  onReturn(() => {
    stopSearch();
    unchoose();
  });
  addEventListener("pageshow", ({ persisted }) => persisted && unchoose());
}

/** The picture itself is sharper than the copy that came back; a format that the browser cannot show keeps the copy. */
async function usePicture(file) {
  const image = document.querySelector(".query-picture");
  const trial = new Image();
  const address = URL.createObjectURL(file);
  trial.src = address;
  try {
    await trial.decode();
    image.src = address;
    await image.decode();
  } catch {
    // the copy stays
  } finally {
    URL.revokeObjectURL(address); // what is shown has been read
  }
}

function showWaiting(main, file) {
  const waiting = document.getElementById("searching").content.cloneNode(true);
  waiting.querySelector(".query-name").textContent = file.name || "Your picture";
  const image = waiting.querySelector("img");
  for (const part of main.children) part.classList.add("behind");
  main.append(waiting);
  const address = URL.createObjectURL(file);
  image.src = address;
  image.decode().catch(() => image.remove()).finally(() => URL.revokeObjectURL(address));
  scrollTo(0, 0);
}

function hideWaiting(main) {
  main.querySelector(".results[aria-busy]")?.remove();
  for (const part of main.children) part.classList.remove("behind");
}
