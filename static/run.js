// While a first run goes on, says how far it has come.

const EVERY = 3000; // ms

export function watchRun() {
  const timer = setInterval(async () => {
    const note = document.querySelector(".run");
    if (!note) return;
    let health;
    try {
      health = await (await fetch(note.dataset.health, { headers: { Accept: "application/json" } })).json();
    } catch {
      return; // the next time may go better
    }
    const count = document.querySelector("[data-images]");
    if (count && health.images !== undefined) {
      count.textContent = `${grouped(health.images)} ${health.images === 1 ? "picture" : "pictures"}`;
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

const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, " ");
