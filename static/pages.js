// Every change of the page goes through here: a page is fetched, put in place and added to the history.
// If the address names an upload, the file that this browser keeps is sent along.

import { clearError, say, sayError, setBusy } from "./notices.js";
import { file as keptFile, keep as keepFile } from "./uploads.js";

/** A response that is not a page to show; its message is for the user. */
export class Refusal extends Error {}

const OURS = /\/(search|compare)?$/; // pages that need no scripts of their own
const NOT_STORED =
  "This browser cannot store your picture: the window is private, or the storage is full. It is kept until you leave this page";
const MOST = 24; // views kept in memory, so that Back shows them at once
const views = new Map();
const us = Math.random().toString(36); // identifies this document, because the history outlives it
let shown = 0;
let last = 0;
let running; // {address, controller} of the page being loaded

/** Resolves to the document at an address, sending a file along if there is one; rejects with a Refusal that has the
 * message of the server. */
export async function load(address, signal, file = null) {
  const { pathname, searchParams } = new URL(address, location);
  const key = searchParams.get("upload");
  if (key && !searchParams.has("id")) file ??= await keptFile(key);
  return file ? fetchPage(pathname, { method: "POST", body: formOf(file, searchParams), signal }) : fetchPage(address, { signal });
}

function formOf(file, fields) {
  const most = Number(document.getElementById("bar")?.dataset.maxBytes ?? Infinity);
  if (file.size > most) {
    throw new Refusal(`The picture is larger than ${Math.floor(most / 1e6)} MB. Save a smaller copy and try again.`);
  }
  const form = new FormData();
  form.append("image", file, file.name || "picture");
  for (const [name, value] of fields) if (name !== "upload") form.append(name, value);
  return form;
}

async function fetchPage(address, options) {
  let response;
  let text;
  try {
    response = await fetch(address, { ...options, headers: { Accept: "text/html" } });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not respond. Check that it is still running, then try again.");
  }
  const page = parse(text);
  if (!response.ok) {
    const message = page.querySelector("[data-error]")?.textContent.trim();
    throw new Refusal(message || defaultMessage(response.status));
  }
  if (response.redirected) page.address = response.url;
  return page;
}

/** Returns the message for a response that has none, for example a proxy's. */
function defaultMessage(status) {
  if (status === 413) return "The server, or a proxy in front of it, does not accept such a large file. Save a smaller copy and try again.";
  return `The server answered with an error (${status}). Try again in a moment.`;
}

/** Parses a page. The nonce of its style elements is not valid under the policy of this page, so their rules, such as
 * `#i7{--ratio:1.5;--tint:#aabbcc}`, are set on the pictures themselves. */
function parse(text) {
  let rules = "";
  const html = text.replace(/<style [^>]*class="places">([^<]*)<\/style>/g, (_, found) => {
    rules += found;
    return "";
  });
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const [, id, declarations] of rules.matchAll(/#(\w+)\{([^}]*)\}/g)) {
    const place = page.getElementById(id);
    for (const declaration of declarations.split(";")) {
      const [name, value] = declaration.split(":");
      place?.style.setProperty(name, value);
    }
  }
  return page;
}

/** Goes to an address. Resolves to whether its page is shown; if not, an error is shown and the page stays as it is.
 *
 * file: a picture to search with, which is kept under the key in the response; top: the scroll position; focus: a
 * function that sets the focus; replace: replaces the current step of the history. */
export async function go(address, { file, top = 0, focus = focusHeading, replace = false } = {}) {
  stop();
  clearError();
  const task = (running = { address, controller: new AbortController() });
  setBusy(true, task);
  try {
    const page = await load(address, task.controller.signal, file);
    if (running !== task) return false;
    showPage(page, file ? addressOf(page, address, file) : (page.address ?? address), { top, replace });
    focus();
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
    return false;
  } finally {
    if (running === task) running = undefined;
    setBusy(false, task);
  }
}

/** Returns the address of the results of a file, and keeps the file under the key in that address. */
function addressOf(page, address, file) {
  const chip = page.querySelector(".chip.query[data-key]");
  const named = new URL(address, location);
  named.searchParams.set("upload", chip.dataset.key);
  keepFile(chip.dataset.key, file, chip.querySelector("img")?.src).then((isStored) => isStored || say(NOT_STORED));
  return named;
}

/** Returns the address of the page that is shown or being loaded, to which the next change applies. */
export function current() {
  return new URL(running?.address ?? location, location);
}

/** Stops loading a page. */
export function stop() {
  running?.controller.abort();
  running = undefined;
}

export function focusHeading() {
  document.getElementById("title")?.focus({ preventScroll: true });
}

/** Keeps the current view for Back, with its forms as they were. */
function keepView() {
  for (const form of document.forms) form.reset();
  const focus = document.activeElement.closest("#main *");
  views.set(shown, { ...parts(document), title: document.title, top: scrollY, focus });
  if (views.size > MOST) views.delete(views.keys().next().value);
}

function showPage(page, address, { top, replace }) {
  keepView();
  if (!replace) {
    for (const view of views.keys()) if (view > shown) views.delete(view); // Forward no longer leads there
    history.replaceState({ us, view: shown }, ""); // a step within the page, such as #main, has no state
  }
  shown = last += 1; // a new number even if it replaces a step, so that Back and Forward tell the two apart
  history[replace ? "replaceState" : "pushState"]({ us, view: shown }, "", address);
  const { main, header } = parts(page);
  mount({ main: document.adoptNode(main), header: document.adoptNode(header), title: page.title, top });
}

/** Returns the parts that differ from page to page. */
function parts(page) {
  return { main: page.getElementById("main"), header: page.querySelector("header.top") };
}

function mount({ main, header, title, top }) {
  const now = parts(document);
  now.main.dispatchEvent(new Event("leave"));
  now.main.replaceWith(main);
  now.header.replaceWith(header);
  document.title = title;
  scrollTo(0, top);
  document.dispatchEvent(new CustomEvent("page:shown"));
}

/** Calls `left()` when another view replaces this one. */
export function onLeave(left) {
  document.getElementById("main").addEventListener("leave", left, { once: true });
}

/** Returns whether a click should open its link here: not in a new tab, not as a download, not handled elsewhere. */
export const isPlain = (event) =>
  !event.defaultPrevented && event.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey);

/** Opens links and forms that lead to our pages without leaving this one; handles Back and Forward. */
export function followLinks() {
  history.replaceState({ ...history.state, us, view: shown }, "");
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link || !isPlain(event) || link.target || link.hasAttribute("download") || !canShow(link)) return;
    event.preventDefault();
    if (link.dataset.judge) judge(link);
    else go(link.href);
  });
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "get" || !OURS.test(new URL(form.action).pathname)) return;
    event.preventDefault();
    goTo(form);
  });
  addEventListener("popstate", ({ state }) => {
    if (state?.us === us && state.view === shown) return; // a step within the page
    if (!state && location.hash) return;
    stop();
    const view = state?.us === us ? views.get(state.view) : undefined;
    if (view) {
      keepView();
      shown = state.view;
      mount(view);
      if (view.focus) view.focus.focus({ preventScroll: true });
      else focusHeading();
    } else if (canShow(location)) {
      go(location.href, { replace: true, top: state?.top });
    } else {
      location.reload();
    }
  });
  addEventListener("scrollend", () => {
    // The browser remembers the scroll position of other pages, but the page of an upload is empty when reloaded.
    const isUpload = document.querySelector(".chip.query[data-key]") && !document.querySelector("[data-upload]");
    if (isUpload) history.replaceState({ ...history.state, top: scrollY }, "");
  });
  sendWaiting();
  document.addEventListener("page:shown", sendWaiting);
}

function canShow({ origin, pathname, hash }) {
  return origin === location.origin && OURS.test(pathname) && !hash && document.getElementById("bar");
}

/** Goes to the address of a form, without its empty fields. */
export function goTo(form, options) {
  const address = new URL(form.action);
  address.search = "";
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && (value.trim() || name === "ids")) address.searchParams.append(name, value.trim());
  }
  if (!["id", "q", "like", "dislike", "upload"].some((name) => address.searchParams.has(name))) {
    address.pathname = new URL(document.querySelector("a.brand").href).pathname; // the collection
    for (const name of ["box", "rule", "metric", "distinct", "copies"]) address.searchParams.delete(name);
  }
  return go(address, options);
}

/** Likes or dislikes a picture, or undoes it. While another ranking is being loaded, both are combined. */
function judge(link) {
  const { judge: word, id } = link.dataset;
  if (!running) {
    go(link.href, { top: scrollY, focus: focusPlace() });
    return;
  }
  const address = current();
  const { searchParams } = address;
  searchParams.delete("cursor");
  for (const name of ["like", "dislike"]) {
    const kept = word === "clear" ? [] : searchParams.getAll(name).filter((other) => other !== id);
    searchParams.delete(name);
    for (const other of kept) searchParams.append(name, other);
  }
  if (word === "like" || word === "dislike") searchParams.append(word, id);
  go(address, { top: scrollY, focus: focusPlace() });
}

/** Returns a function that keeps the focus at the same place in the grid, whichever picture is there by then. */
function focusPlace() {
  const tile = document.activeElement?.closest(".tile");
  const at = tile ? [...tile.parentElement.children].indexOf(tile) : -1;
  const word = document.activeElement?.dataset?.judge;
  return () => {
    const next = document.querySelectorAll(".grid > .tile")[at];
    const target = (word && next?.querySelector(`[data-judge=${word}]`)) || next?.querySelector("a.photo");
    if (target) target.focus({ preventScroll: true });
    else focusHeading();
  };
}

/** Sends the file of an upload whose page came without it, if this browser still has the file. */
async function sendWaiting() {
  const waiting = document.querySelector("[data-upload]");
  if (!waiting) return;
  const top = history.state?.top;
  const isOurs = await keptFile(waiting.dataset.upload);
  if (!waiting.isConnected) return;
  if (isOurs) go(location.href, { replace: true, top });
  else for (const part of waiting.children) part.classList.remove("unscripted");
}
