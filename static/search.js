// Searches by a picture of one's own, without leaving the page. The server keeps nothing, so the file is held here for
// as long as its results are open: more of them are asked for by sending it again.

import { clearError, sayError, setBusy } from "./notices.js";
import { fetchPage, onReturn, Refusal, showPage } from "./pages.js";

const held = new WeakMap(); // the results on the page -> {file, preview}
const PATIENCE = 140; // ms before the waiting state shows; most answers are there sooner
let running;

/** The file whose results are on the page, if they are those of a file. */
export function currentFile() {
  return held.get(document.getElementById("main"))?.file;
}

/** Asks for results page of `file` with `k` pictures; rejects with a Refusal. */
export function ask(file, k, signal) {
  const form = document.querySelector("form.upload");
  const most = Number(form?.dataset.maxBytes ?? Infinity);
  if (file.size > most) {
    throw new Refusal(`The picture is larger than ${Math.floor(most / 1e6)} MB. Save it smaller and try again.`);
  }
  const body = new FormData();
  body.append("image", file, file.name || "picture");
  body.append("k", k);
  return fetchPage(form.action, { method: "POST", body, signal });
}

/** Searches by `file` and shows the results, or says why not. */
export async function searchBy(file) {
  stopSearch();
  clearError();
  const mine = (running = new AbortController());
  const k = document.querySelector(".upload select[name=k]")?.value ?? "";
  const preview = URL.createObjectURL(file);
  const before = document.getElementById("main");
  setBusy(true);
  const waiting = setTimeout(() => showWaiting(before, file, preview), PATIENCE);
  const settle = () => {
    clearTimeout(waiting);
    if (running === mine) running = undefined;
    if (!running) setBusy(false);
    hideWaiting(before);
  };
  try {
    const page = await ask(file, k, mine.signal);
    settle();
    showPage(page, `${document.querySelector("a.brand").pathname}#picture`);
    held.set(document.getElementById("main"), { file, preview });
    usePreview(preview);
    document.querySelector(".found h1")?.focus({ preventScroll: true });
  } catch (error) {
    settle();
    URL.revokeObjectURL(preview);
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
  }
}

export function stopSearch() {
  running?.abort();
}

/** Another number of pictures: the same search again, or the links of the first page. */
export function chooseK() {
  document.addEventListener("change", (event) => {
    if (!event.target.matches(".upload select[name=k]")) return;
    const file = currentFile();
    const results = document.querySelector(".results[data-query=id]");
    if (file) {
      searchBy(file);
    } else if (results) {
      const address = new URL(location);
      address.searchParams.set("k", event.target.value);
      location.assign(address);
    } else {
      for (const link of document.querySelectorAll("a.picture")) {
        const address = new URL(link.href);
        address.searchParams.set("k", event.target.value);
        link.href = address;
      }
    }
  });
  onReturn(stopSearch);
}

/** The picture itself is sharper than the copy that came back; a format that the browser cannot show keeps the copy. */
function usePreview(preview) {
  const image = document.querySelector(".query-picture");
  const trial = new Image();
  trial.src = preview;
  trial.decode().then(() => (image.src = preview), () => {});
}

function showWaiting(main, file, preview) {
  const waiting = document.getElementById("searching").content.cloneNode(true);
  waiting.querySelector(".query-name").textContent = file.name || "Your picture";
  const image = waiting.querySelector("img");
  image.addEventListener("error", () => image.remove());
  image.src = preview;
  for (const part of main.children) part.classList.add("behind");
  main.append(waiting);
  scrollTo(0, 0);
}

function hideWaiting(main) {
  main.querySelector(".results[aria-busy]")?.remove();
  for (const part of main.children) part.classList.remove("behind");
}
