// Messages of the page: errors, short confirmations, and the line that shows it is busy.

const busy = document.getElementById("busy");
const toast = document.getElementById("toast");
const running = new Set();
let fading;

/** Shows an error at the top of the page, and announces it to screen readers. */
export function sayError(message) {
  const notice = document.querySelector("#main .notice");
  notice.querySelector("p").textContent = message;
  notice.querySelector("button").onclick = clearError;
  notice.hidden = false;
  document.getElementById("recent")?.remove(); // it would cover the notice
  notice.scrollIntoView({ block: "nearest" });
}

export function clearError() {
  document.querySelector("#main .notice").hidden = true;
}

/** Shows a message for a moment. */
export function say(message) {
  clearTimeout(fading);
  toast.textContent = message;
  fading = setTimeout(() => (toast.textContent = ""), 1500 + 50 * message.length);
}

/** Shows the line at the top while any task is running; `what` identifies the task. */
export function setBusy(on, what = "page") {
  if (on) running.add(what);
  else running.delete(what);
  busy.hidden = running.size === 0;
}

/** Shows the line while the browser leaves for another page. */
export function busyWhileLeaving() {
  addEventListener("pagehide", () => setBusy(true));
  addEventListener("pageshow", () => setBusy(false));
}

export const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u00a0");

export const counted = (number) => `${grouped(number)} ${number === 1 ? "picture" : "pictures"}`;
