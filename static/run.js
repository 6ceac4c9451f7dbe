// Shows the progress of an indexing run.

import { counted, grouped } from "./notices.js";

const EVERY = 3000; // ms

export function watchRun() {
  const timer = setInterval(async () => {
    const note = document.querySelector(".run");
    if (!note) return;
    let health;
    try {
      health = await (await fetch(note.dataset.health, { headers: { Accept: "application/json" } })).json();
    } catch {
      return; // try again next time
    }
    const count = document.querySelector("[data-images]");
    if (count && health.images !== undefined) {
      count.textContent = counted(health.images);
    }
    if (health.run?.active) {
      note.textContent = `${grouped(health.run.done)} of ${grouped(health.run.total)} so far`;
    } else {
      note.remove();
      clearInterval(timer);
    }
  }, EVERY);
  if (!document.querySelector(".run")) clearInterval(timer);
}
