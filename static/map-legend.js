// What the colours mean: a list of labels or groups, each of which can be chosen.

import { categoryColour, css, noColour } from "./map-colours.js";
import { NONE } from "./map-data.js";

/** What the points can be coloured by; only what there is. */
export function waysToColour(map) {
  const ways = [];
  if (map.labels.length) ways.push({ name: "Label", column: map.label, names: map.labels, rest: "Others" });
  if (map.clusters) {
    const names = Array.from({ length: map.clusters }, (_, n) => `Group ${n + 1}`);
    ways.push({ name: "Group", column: map.cluster, names, rest: "No group" });
  }
  ways.push({ name: "Own colour", column: null, names: [], rest: "" });
  return ways;
}

/** The colour of image `i` as [red, green, blue]. */
export function colourOf(map, way, i) {
  if (!way.column) return map.colour.subarray(3 * i, 3 * i + 3);
  const number = way.column[i];
  return number === NONE ? noColour() : categoryColour(number);
}

/** Fills the list; `chosen(number, name)` is called when an entry is pressed. */
export function fillLegend(list, way, chosen) {
  list.replaceChildren();
  if (!way.column) return;
  const counts = new Map();
  for (const number of way.column) counts.set(number, (counts.get(number) ?? 0) + 1);
  const numbers = [...way.names.keys(), NONE].filter((number) => counts.has(number));
  for (const number of numbers) {
    const name = number === NONE ? way.rest : way.names[number];
    const button = document.createElement("button");
    const swatch = document.createElement("i");
    swatch.style.setProperty("--swatch", css(number === NONE ? noColour() : categoryColour(number)));
    const words = document.createElement("span");
    words.textContent = name;
    const count = document.createElement("small");
    count.textContent = counts.get(number);
    button.type = "button";
    button.dataset.number = number;
    button.setAttribute("aria-pressed", "false");
    button.append(swatch, words, count);
    button.addEventListener("click", () => chosen(number, name));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}
