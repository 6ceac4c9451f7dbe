// What the page says about itself: an error in words, a short confirmation, and that it is at work.

const busy = document.getElementById("busy");
const toast = document.getElementById("toast");
const underWay = new Set();
let fading;

/** Shows an error at the top of the page, where screen readers hear it too. */
export function sayError(message) {
  const notice = document.querySelector("#main .notice");
  notice.querySelector("p").textContent = message;
  notice.querySelector("button").onclick = clearError;
  notice.hidden = false;
  document.getElementById("recent")?.remove(); // which would cover it
  notice.scrollIntoView({ block: "nearest" });
}

export function clearError() {
  document.querySelector("#main .notice").hidden = true;
}

/** Confirms something in passing. */
export function say(message) {
  clearTimeout(fading);
  toast.textContent = message;
  fading = setTimeout(() => (toast.textContent = ""), 1500 + 50 * message.length);
}

/** The line at the top shows for as long as anything is under way; `what` tells it from the others. */
export function setBusy(on, what = "page") {
  if (on) underWay.add(what);
  else underWay.delete(what);
  busy.hidden = underWay.size === 0;
}

/** A page that is left for another shows that the click was heard. */
export function busyWhileLeaving() {
  addEventListener("pagehide", () => setBusy(true));
  addEventListener("pageshow", () => setBusy(false));
}

export const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");

export const counted = (number) => `${grouped(number)} ${number === 1 ? "picture" : "pictures"}`;
