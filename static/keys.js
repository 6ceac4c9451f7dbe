// Keyboard shortcuts. Keys with a modifier, and keys pressed in a field, are left to the browser.

import { copy } from "./copy.js";

export function listenForKeys({ escape }) {
  const list = document.getElementById("keys");
  const actions = {
    "/": () => focus(document.querySelector("#bar [name=q]")),
    u: () => focus(document.querySelector("#bar [type=file]")),
    j: () => step(1),
    k: () => step(-1),
    ArrowRight: () => step(1),
    ArrowLeft: () => step(-1),
    ArrowDown: () => line(1),
    ArrowUp: () => line(-1),
    o: () => press("a.photo"),
    f: () => press("a.similar"),
    "+": () => press("[data-judge=like]"),
    "=": () => press("[data-judge=like]"), // the same key, without Shift
    "-": () => press("[data-judge=dislike]"),
    l: copyLink,
    r: () => document.querySelector("[popovertarget=ranking]"),
    s: () => document.querySelector("#main [aria-keyshortcuts=s]") ?? document.querySelector("#more-views [aria-keyshortcuts=s]"),
    i: () => next(document.querySelectorAll("#indexes a")),
    m: () => document.querySelector(".more a"),
    g: () => document.querySelector("a.brand"),
    "?": () => list.togglePopover() || true,
    Escape: escape,
  };

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.target.matches("select, textarea, input:not([type=file])")) return;
    if (document.querySelector(".pswp, dialog[open]")) return; // they handle keys themselves
    if (document.querySelector("[popover]:popover-open") && event.key !== "?") return;
    const result = actions[event.key]?.();
    if (!result) return;
    event.preventDefault();
    if (result instanceof HTMLElement) result.click();
  });
}

const focus = (element) => {
  element?.focus();
  return Boolean(element);
};

/** Returns the link after the current one; after the last comes the first. */
function next(links) {
  const all = [...links];
  return all[(all.findIndex((link) => link.matches("[aria-current]")) + 1) % all.length];
}

function copyLink() {
  copy(location.href, "Link copied");
  return true;
}

const cards = () => [...document.querySelectorAll(".grid > .tile")];

const current = () => document.activeElement?.closest(".tile");

const focusCard = (card) => focus(card?.querySelector("a.photo"));

function step(by) {
  const all = cards();
  const at = all.indexOf(current());
  return focusCard(at < 0 ? all[0] : all[at + by]);
}

/** Moves to the picture above or below the middle of the current one. */
function line(by) {
  const from = current()?.getBoundingClientRect();
  if (!from) return false; // let the page scroll
  const middle = from.left + from.width / 2;
  const [best] = cards()
    .map((card) => {
      const { top, left, right } = card.getBoundingClientRect();
      return { card, down: Math.round((top - from.top) * by), aside: Math.max(left - middle, middle - right, 0) };
    })
    .filter(({ down }) => down > 1)
    .sort((a, b) => a.down - b.down || a.aside - b.aside);
  return best ? focusCard(best.card) : true;
}

/** Returns the element of an action of the picture that has the focus. */
const press = (action) => current()?.querySelector(action);
