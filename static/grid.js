// The grid of pictures: adds pictures from the next page, endlessly, and changes their size.

import { clearError, sayError, setBusy } from "./notices.js";
import { isPlain, load, onLeave, Refusal } from "./pages.js";

const AHEAD = "1200px"; // distance from the end at which more is loaded

/** Adds the tiles of a page that the grid does not have yet; returns them. */
export function append(grid, page) {
  const known = new Set([...grid.children].map((tile) => tile.id));
  const fresh = [...page.querySelectorAll(".grid > .tile")].filter((tile) => !known.has(tile.id));
  grid.append(...fresh);
  grid.dispatchEvent(new CustomEvent("grid:changed", { bubbles: true, detail: { fresh } }));
  return fresh;
}

/** Follows the link to more pictures when it comes near or is clicked; listens to the size slider. */
export function growGrids() {
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) grow(target);
  }, { rootMargin: AHEAD });
  const watch = () => {
    near.disconnect();
    for (const link of document.querySelectorAll("a[data-endless]")) near.observe(link);
    for (const slider of document.querySelectorAll(".size input")) slider.value = rowHeight();
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-endless]");
    if (!link || !isPlain(event)) return;
    event.preventDefault();
    grow(link);
  }, { capture: true });
  document.addEventListener("input", (event) => {
    if (!event.target.matches(".size input")) return;
    document.documentElement.style.setProperty("--row", `${event.target.value}px`);
    try {
      localStorage.setItem("row", event.target.value);
    } catch {
      // storage is not allowed
    }
  });
  document.addEventListener("page:shown", watch);
  document.addEventListener("grid:changed", watch);
  watch();
}

// On a phone, the height follows from the width of the window until a size is chosen.
const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row")) || innerWidth / 3.4;

async function grow(link) {
  if (link.getAttribute("aria-busy")) return;
  const grid = link.closest("section").querySelector(".grid");
  const byKeyboard = link.matches(":focus-visible");
  const controller = new AbortController();
  onLeave(() => controller.abort());
  link.setAttribute("aria-busy", "true");
  setBusy(true, controller);
  clearError();
  try {
    const page = await load(link.href, controller.signal);
    const next = page.querySelector("a[data-endless]");
    if (next) link.closest(".more").replaceWith(next.closest(".more"));
    else link.closest(".more").remove();
    const [first] = append(grid, page);
    if (byKeyboard) first?.querySelector("a.photo").focus({ preventScroll: true });
  } catch (error) {
    if (error.name === "AbortError") return; // another page is shown by now
    if (!(error instanceof Refusal)) throw error;
    sayError(error.message);
  } finally {
    link.removeAttribute("aria-busy"); // Back may show it again
    setBusy(false, controller);
  }
}
