// Keeps an unfinished last row where it is when pictures are added after it: its pictures keep their size, and the new
// ones beside them take what is left of the row. A change of width lets every row settle anew.

// How much a new picture may be cropped, in height or in width, to finish the row; beyond that a gap is better.
const STRETCH = 1.5;
const SQUEEZE = 0.55;

/** Fixes the last row of `gallery`; returns `fill(cards)`, to be called when new cards have been added. */
export function freezeRow(gallery) {
  const last = gallery.lastElementChild;
  if (!last) return () => {};
  const top = last.offsetTop;
  const row = [...gallery.children].filter((card) => card.offsetTop === top);
  const height = last.querySelector(".picture").getBoundingClientRect().height;
  const widths = row.map((card) => card.getBoundingClientRect().width);
  row.forEach((card, at) => hold(card, widths[at], height));

  return (cards) => {
    const gap = parseFloat(getComputedStyle(gallery).columnGap);
    const left = gallery.clientWidth - widths.reduce((sum, width) => sum + width + gap, 0);
    const natural = cards.map((card) => height * Number(getComputedStyle(card).getPropertyValue("--ratio")));
    const { count, stretch } = bestFit(natural, left, gap);
    for (let at = 0; at < count; at += 1) hold(cards[at], natural[at] * stretch - 0.02, height);
    if (count === 0 && cards.length) last.style.marginRight = `${Math.max(0, left + gap - 0.5)}px`; // no other may move up
  };
}

/** How many of the pictures, `natural` px wide, go into `left` px, and by what they are stretched for that. */
function bestFit(natural, left, gap) {
  let best = { count: 0, stretch: 1 };
  let sum = 0;
  for (let count = 1; count <= natural.length; count += 1) {
    sum += natural[count - 1];
    const stretch = (left - (count - 1) * gap) / sum;
    if (stretch < SQUEEZE) break;
    const better = best.count === 0 || Math.abs(Math.log(stretch)) < Math.abs(Math.log(best.stretch));
    if (stretch <= STRETCH && better) best = { count, stretch };
  }
  return best;
}

/** Lets the rows settle anew whenever the width of the window changes. */
export function releaseRows() {
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    for (const card of document.querySelectorAll(".card.filling")) {
      card.classList.remove("filling");
      for (const name of ["flex", "max-width", "margin-right", "--height"]) card.style.removeProperty(name);
    }
  });
}

function hold(card, width, height) {
  card.classList.add("filling");
  card.style.flex = `0 0 ${width}px`;
  card.style.maxWidth = "none";
  card.style.setProperty("--height", `${height}px`);
}
