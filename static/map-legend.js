// The colours of the points, and the legend: labels or groups, each of which can be selected.

import { NONE } from "./map-data.js";

const scheme = matchMedia("(prefers-color-scheme: dark)");
let isDark = scheme.matches; // not read again, because Chromium fires no event for a change that a script has already read

/** Calls `changed()` when the system turns to light or dark. */
export function onScheme(changed) {
  scheme.addEventListener("change", (event) => {
    isDark = event.matches;
    changed();
  });
}

/** Returns the ways to colour the points that this map offers. */
export function waysToColour(map) {
  const ways = [];
  if (map.labels.length) ways.push({ title: "Label", column: map.label, names: map.labels, rest: "Others" });
  if (map.clusters) {
    const names = Array.from({ length: map.clusters }, (_, n) => `Group ${n + 1}`);
    ways.push({ title: "Group", column: map.cluster, names, rest: "No group" });
  }
  ways.push({ title: "Picture colour", column: null, names: [], rest: "" });
  return ways;
}

/** Returns the colour of image `i` as [red, green, blue], 0..255. */
export function colourOf(map, way, i) {
  return way.column ? categoryColour(way.column[i]) : map.colour.subarray(3 * i, 3 * i + 3);
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

/** Fills the legend; calls `choose(number, name)` when an entry is pressed. */
export function fillLegend(list, way, choose) {
  list.replaceChildren();
  if (!way.column) return;
  const counts = new Map();
  for (const number of way.column) counts.set(number, (counts.get(number) ?? 0) + 1);
  const numbers = [...way.names.keys(), NONE].filter((number) => counts.has(number));
  for (const number of numbers) {
    const name = number === NONE ? way.rest : way.names[number];
    const item = list.appendChild(document.createElement("li"));
    item.innerHTML = `<button type="button" data-number="${number}" aria-pressed="false">
      <i></i><span></span><small>${counts.get(number)}</small></button>`;
    item.querySelector("i").style.setProperty("--swatch", css(categoryColour(number)));
    item.querySelector("span").textContent = name;
    item.querySelector("button").addEventListener("click", () => choose(number, name));
  }
}

// Consecutive numbers get very different hues of the same perceived brightness.
function categoryColour(number) {
  if (number === NONE) return isDark ? [96, 96, 96] : [178, 178, 178];
  const hue = 265 + number * 137.508;
  const step = Math.floor(number / 9) % 3;
  const lightness = (isDark ? 0.76 : 0.62) + [0, -0.13, 0.09][step];
  return fromOklch(lightness, 0.155 - 0.02 * step, hue);
}

// Björn Ottosson, "A perceptual color space for image processing" (2020).
function fromOklch(lightness, chroma, degrees) {
  const angle = (degrees * Math.PI) / 180;
  const a = chroma * Math.cos(angle);
  const b = chroma * Math.sin(angle);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((part) => Math.round(255 * gamma(Math.min(Math.max(part, 0), 1))));
}

const gamma = (part) => (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055);
