// Fetches a page of this site and brings parts of it into the one that is open.

/** An answer that is no page to show; its message is for people. */
export class Refusal extends Error {}

/** Resolves to the parsed document; rejects with a Refusal that carries the page's own sentence. */
export async function fetchPage(address, options = {}) {
  let response;
  let text;
  try {
    response = await fetch(address, { ...options, headers: { Accept: "text/html" } });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. See whether it is still running, then try again.");
  }
  const page = parse(text);
  if (!response.ok) {
    const sentence = page.querySelector("[data-error]")?.textContent.trim();
    throw new Refusal(sentence || withoutSentence(response.status));
  }
  return page;
}

/** What an answer without a sentence of ours means: it may be a proxy's. */
function withoutSentence(status) {
  if (status === 413) return "The server, or a proxy in front of it, takes no file this large. Save it smaller and try again.";
  return `The server answered with an error (${status}). Try again in a moment.`;
}

// The style element that gives each picture its place has the word of another page, which this one's policy does not
// know: its rules, `#i7{--ratio:1.5;--tint:#aabbcc}`, are taken out and set on the pictures themselves.
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

const MOST = 24; // views that are held, the latest ones; an earlier one is loaded anew

// Views that were left without leaving the document, so that Back brings them again. The history outlives a document:
// a step that another one made, before a reload, is not ours to show.
const views = new Map();
const us = Math.random().toString(36);
let shown = 0;
let last = 0;

function keep() {
  views.set(shown, { ...parts(document), title: document.title, top: scrollY });
  if (views.size > MOST) views.delete(views.keys().next().value);
}

/** Shows the fetched page in place of the open one, `top` px down, as a new step in the history. */
export function showPage(page, address, { top = 0 } = {}) {
  for (const view of views.keys()) if (view > shown) views.delete(view); // Forward no longer leads there
  keep();
  history.replaceState({ us, view: shown }, ""); // a step within the page, as to #main, does not say whose it is
  shown = last += 1;
  history.pushState({ us, view: shown }, "", address);
  const { main, header } = parts(page);
  mount({ main: document.adoptNode(main), header: document.adoptNode(header), title: page.title, top });
}

/** What differs from page to page; the line at the top names the index. */
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
}

/** Calls `left()` when another view takes the place of the one with this `main`. */
export function onLeave(main, left) {
  main.addEventListener("leave", left, { once: true });
}

/** Calls `arrived()` after Back or Forward has brought a view again. */
export function onReturn(arrived) {
  addEventListener("popstate", ({ state }) => {
    if (!state || (state.us === us && state.view === shown)) return; // a step within the page
    const view = state.us === us ? views.get(state.view) : undefined;
    if (!view) {
      location.reload();
      return;
    }
    keep();
    shown = state.view;
    mount(view);
    arrived();
  });
}
