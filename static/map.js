// The map: wires the view, the points, the pictures, the legend and the selection.

import { colourOf, fillLegend, waysToColour } from "./map-legend.js";
import { css, onScheme, pixel } from "./map-colours.js";
import { fetchMap, shuffled } from "./map-data.js";
import { listenForGestures } from "./map-gestures.js";
import { Levels } from "./map-levels.js";
import { drawCorners, drawOutline, drawRing } from "./map-marks.js";
import { Picked } from "./map-picked.js";
import { Pictures, shape } from "./map-pictures.js";
import { Places } from "./map-places.js";
import { Points } from "./map-points.js";
import { View } from "./map-view.js";
import { sayError, setBusy } from "./notices.js";

const SIDE = matchMedia("(max-width: 560px)").matches ? 60 : 80; // px that a picture takes, at first
const GAP = 8;
const FEW = 160; // images that are shown as pictures at once
const MIDDLE = 40; // px around the middle in which Enter looks
const NEAR = 1.8; // times the whole map in view, from where there are pictures

const atlas = document.querySelector(".atlas[data-points]");
if (atlas) open(atlas);

async function open(atlas) {
  setBusy(true);
  let map;
  try {
    map = await fetchMap(atlas.dataset.points);
  } catch (error) {
    sayError(`The map could not be loaded. ${error.message}`);
    return;
  } finally {
    setBusy(false);
  }
  start(atlas, map);
}

function start(atlas, map) {
  const canvas = atlas.querySelector("canvas");
  const context = canvas.getContext("2d");
  const part = (name) => atlas.querySelector(`[data-part=${name}]`);
  const order = shuffled(map.count);
  const view = new View(map);
  const places = new Places(map, view.box);
  const points = new Points(map, order);
  const levels = new Levels(map, order, SIDE, GAP, (i) => shape(map, i));
  const ways = waysToColour(map);
  let way = ways[0];
  let chosen = new Set(); // the selection; empty: none
  let outline = null;
  let hover = -1;
  let shown = []; // images that stand there as pictures
  let side = SIDE;
  let ratio = 1;

  const searchAddress = (i) => addressOf(atlas.dataset.search, (url) => url.searchParams.set("id", map.id[i]));
  const thumbnail = (i) =>
    addressOf(atlas.dataset.thumbnail, (url) => {
      url.pathname = url.pathname.replace(/0$/, map.id[i]);
      url.searchParams.set("v", map.version[i].toString(16).padStart(8, "0"));
    });
  const colour = (i) => css(colourOf(map, way, i));
  const pictures = new Pictures(map, thumbnail, draw);
  const picked = new Picked(part("picked"), {
    address: searchAddress,
    thumbnail,
    ratio: (i) => map.ratio[i] / 1000,
    colour: (i) => css(map.colour.subarray(3 * i, 3 * i + 3)),
  });

  // -- drawing ----------------------------------------------------------------------------------------------------

  let asked = 0;
  function draw() {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      paint();
    });
  }

  function paint() {
    const zoom = view.scale / view.whole;
    const radius = (map.count > 20000 ? 1.5 : map.count > 4000 ? 2 : 3) + Math.min(Math.log2(zoom) * 0.5, 2);
    points.draw(context, view, ratio, radius);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    shown = picturesInView(zoom);
    pictures.draw(context, view, shown, side, (i) => (chosen.size && !chosen.has(i) ? "transparent" : colour(i)));
    if (hover >= 0 && !shown.includes(hover)) drawRing(context, view.toX(map.x[hover]), view.toY(map.y[hover]), radius + 4);
    if (canvas.matches(":focus-visible")) finder();
    if (outline) drawOutline(context, outline);
    canvas.dataset.shown = shown.length; // for those who watch from outside
    canvas.dataset.zoom = zoom.toFixed(3);
  }

  function picturesInView(zoom) {
    if (map.count > FEW && zoom < NEAR) return [];
    const level = levels.reach(view.scale);
    if (levels.behind) draw();
    // Once all have their place, coming nearer makes them larger.
    side = levels.waiting.length ? SIDE : Math.min(SIDE * Math.max(1, view.scale / 2 ** (levels.at / 2)), 3 * SIDE);
    const reach = side / view.scale;
    const found = [];
    const [left, right] = [view.fromX(0) - reach, view.fromX(view.width) + reach];
    const [bottom, top] = [view.fromY(view.height) - reach, view.fromY(0) + reach];
    places.near(left, right, bottom, top, (i) => {
      const inView = map.x[i] > left && map.x[i] < right && map.y[i] > bottom && map.y[i] < top;
      if (inView && levels.level[i] <= level && (!chosen.size || chosen.has(i))) found.push(i);
    });
    return found;
  }

  /** Where image `i` is on the canvas: its picture, or its point. */
  function boxOf(i) {
    if (shown.includes(i)) return pictures.box(i, view, side);
    return { left: view.toX(map.x[i]) - 8, top: view.toY(map.y[i]) - 8, width: 16, height: 16 };
  }

  /** Corners around what Enter searches by: the image in the middle. */
  function finder() {
    const i = imageAt(view.width / 2, view.height / 2, MIDDLE);
    const middle = { left: view.width / 2 - 8, top: view.height / 2 - 8, width: 16, height: 16 };
    drawCorners(context, i < 0 ? middle : boxOf(i));
  }

  function recolour() {
    for (let i = 0; i < map.count; i += 1) {
      points.colours[i] = pixel(colourOf(map, way, i));
      points.pale[i] = chosen.size && !chosen.has(i) ? 1 : 0;
    }
    draw();
  }

  // -- what can be done -------------------------------------------------------------------------------------------

  /** The image at a place in px: a picture, or else the nearest point. */
  function imageAt(px, py, reach) {
    const under = shown.find((i) => {
      const { left, top, width, height } = pictures.box(i, view, side);
      return px >= left && px < left + width && py >= top && py < top + height;
    });
    return under ?? places.nearest(view.fromX(px), view.fromY(py), reach / view.scale);
  }

  function showCard(i) {
    const card = part("card");
    hover = i;
    card.hidden = i < 0;
    draw();
    if (i < 0) return;
    card.href = searchAddress(i);
    card.querySelector("img").src = thumbnail(i);
    card.querySelector("span").textContent = map.labels[map.label[i]] ?? "";
    const { offsetWidth: width, offsetHeight: height } = card;
    const [x, y] = [view.toX(map.x[i]), view.toY(map.y[i])];
    card.style.left = `${Math.min(Math.max(x - width / 2, 8), view.width - width - 8)}px`;
    card.style.top = `${y - height - 14 < 8 ? y + 14 : y - height - 14}px`;
  }

  function select(images, heading, pressed) {
    chosen = new Set(images);
    for (const button of part("legend").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.number === String(pressed)));
    }
    picked.show(images, heading);
    atlas.classList.toggle("has-picked", images.length > 0);
    recolour();
  }

  const count = (n) => `${String(n).replace(/\B(?=(\d{3})+$)/g, " ")} ${n === 1 ? "picture" : "pictures"}`;

  function selectWithin(path, where) {
    const images = places.within(path);
    select(images, `${count(images.length)} ${where}`);
    showCard(-1);
  }

  function selectInView() {
    const [left, right] = [view.fromX(0), view.fromX(view.width)];
    const [bottom, top] = [view.fromY(view.height), view.fromY(0)];
    selectWithin([[left, bottom], [right, bottom], [right, top], [left, top]], "in view");
  }

  function setSelecting(on) {
    part("select").setAttribute("aria-pressed", String(on));
    part("move").setAttribute("aria-pressed", String(!on));
    canvas.classList.toggle("is-selecting", on);
  }
  const selecting = () => part("select").getAttribute("aria-pressed") === "true";

  listenForGestures(canvas, view, {
    moved: () => {
      showCard(-1);
      draw();
    },
    hovered: (px, py) => {
      const i = px < 0 ? -1 : imageAt(px, py, 10);
      canvas.classList.toggle("is-over", i >= 0);
      if (i !== hover) showCard(shown.includes(i) ? -1 : i);
    },
    picked: (px, py, event) => {
      const i = imageAt(px, py, event.pointerType === "touch" ? 24 : event.type === "keydown" ? MIDDLE : 10);
      if (i < 0) return select([], "");
      // A finger hides the point that it means: it sees the picture first.
      if (event.pointerType === "touch" && !shown.includes(i)) return showCard(i);
      if (event.ctrlKey || event.metaKey) return window.open(searchAddress(i), "_blank", "noopener");
      setBusy(true);
      location.assign(searchAddress(i));
    },
    outlined: (path) => selectWithin(path, "selected"),
    selecting,
    drawing: (path) => {
      outline = path;
      draw();
    },
  });

  const zoomBy = (factor) => () => {
    view.zoom(factor);
    showCard(-1);
    draw();
  };
  const actions = {
    in: zoomBy(1.6),
    out: zoomBy(1 / 1.6),
    fit: () => {
      view.fit();
      draw();
    },
    move: () => setSelecting(false),
    select: () => setSelecting(true),
    listed: selectInView,
    clear: () => select([], ""),
  };
  for (const [name, act] of Object.entries(actions)) part(name).addEventListener("click", act);
  atlas.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.target.matches("select, input")) return;
    if (event.key === "s") setSelecting(!selecting());
    else if (event.key === "v") selectInView();
    else if (event.key === "Escape" && chosen.size) select([], "");
    else return;
    event.preventDefault();
  });

  const chooser = part("colour");
  chooser.replaceChildren(...ways.map(({ name }) => new Option(name)));
  function colourBy(at) {
    way = ways[at];
    fillLegend(part("legend"), way, (number, name) => {
      const again = part("legend").querySelector(`[data-number="${number}"][aria-pressed=true]`);
      const images = again ? [] : [...order].filter((i) => way.column[i] === number).sort((a, b) => a - b);
      select(images, `${name}, ${count(images.length)}`, number);
    });
    part("key").hidden = !way.column;
    recolour();
  }
  chooser.addEventListener("change", () => {
    select([], "");
    colourBy(chooser.selectedIndex);
  });
  onScheme(() => colourBy(chooser.selectedIndex));

  new ResizeObserver(() => {
    ratio = Math.min(devicePixelRatio, 2);
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    // Wide, the key stands at the right; the whole map fits beside it.
    const key = canvas.clientWidth > 720 ? part("colour").closest(".map-key").offsetWidth : 0;
    view.resize(canvas.clientWidth, canvas.clientHeight, key);
    paint(); // at once: a canvas whose size was set is empty
  }).observe(canvas);
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, draw);
  addEventListener("pageshow", () => setBusy(false));
  part("key").open = !matchMedia("(max-width: 560px)").matches;
  colourBy(0);
}

function addressOf(pattern, change) {
  const url = new URL(pattern, location);
  change(url);
  return url.href;
}
