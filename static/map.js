// Sets up the map: the view, the points, the pictures, the legend and the selection.

import { colourOf, css, fillLegend, onScheme, waysToColour } from "./map-legend.js";
import { fetchMap } from "./map-data.js";
import { listenForGestures, listenForKeys } from "./map-gestures.js";
import { Layout } from "./map-layout.js";
import { Pictures } from "./map-pictures.js";
import { Points } from "./map-points.js";
import { Selection } from "./map-selection.js";
import { View } from "./map-view.js";
import { counted, sayError, setBusy } from "./notices.js";
import { go } from "./pages.js";

const MIDDLE = 40; // px around the centre in which Enter finds an image
const FIRST = 60; // ms for the first frame of the map

const atlas = document.querySelector(".atlas[data-points]");
if (atlas) {
  setBusy(true);
  fetchMap(atlas.dataset.points)
    .then((map) => start(atlas, map))
    .catch((error) => sayError(`The map could not be loaded. ${error.message}`))
    .finally(() => setBusy(false));
}

function start(atlas, map) {
  const canvas = atlas.querySelector("canvas");
  const context = canvas.getContext("2d");
  const part = (name) => atlas.querySelector(`[data-part=${name}]`);
  const view = new View(map);
  const points = new Points(map);
  const pictures = new Pictures(map, thumbnail, draw);
  const ways = waysToColour(map);
  let way = ways[0];
  let layout = null;
  let chosen = new Set(); // the selection
  let outline = null;
  let hover = -1;
  let ratio = 1;

  function searchAddress(i) {
    return `${atlas.dataset.search}?id=${map.id[i]}`;
  }

  function thumbnail(i) {
    return `${atlas.dataset.thumbnail.replace(/0$/, map.id[i])}?v=${map.version[i].toString(16).padStart(8, "0")}`;
  }

  const colour = (i) => css(colourOf(map, way, i));
  const isPale = (i) => chosen.size > 0 && !chosen.has(i);

  // -- drawing ----------------------------------------------------------------------------------------------------

  let requested = 0;
  function draw() {
    requested ||= requestAnimationFrame(() => {
      requested = 0;
      if (layout) paint();
    });
  }

  function paint(budget) {
    const radius = (map.count > 20000 ? 1.5 : map.count > 4000 ? 2 : 3) + Math.min(Math.log2(view.zoomed) * 0.5, 2);
    const shown = layout.inView(view, budget);
    const images = shown.pictures.filter((i) => !isPale(i));
    points.draw(context, view, ratio, radius);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    pictures.draw(context, view, images, shown.side, colour);
    const names = shown.names.filter((i) => !isPale(i));
    pictures.drawNames(context, view, names, (i) => layout.nameOf(i), colour);
    if (hover >= 0 && !pictures.shown.includes(hover)) ring(view.toX(map.x[hover]), view.toY(map.y[hover]), radius + 4);
    if (canvas.matches(":focus-visible")) markMiddle();
    if (outline) lasso();
    if (layout.behind) draw();
    // For tests and benchmarks.
    Object.assign(canvas.dataset, { shown: images.length, names: names.length, zoom: view.zoomed.toFixed(3), ready: !layout.behind });
  }

  const property = (name) => getComputedStyle(canvas).getPropertyValue(name);

  function ring(x, y, radius) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.strokeStyle = property("color");
    context.lineWidth = 2;
    context.stroke();
  }

  /** Draws a frame around the image in the centre, which Enter searches with. */
  function markMiddle() {
    const i = imageAt(view.width / 2, view.height / 2, MIDDLE);
    if (i < 0) {
      ring(view.width / 2, view.height / 2, 8);
    } else if (pictures.shown.includes(i)) {
      const { left, top, width, height } = pictures.box(i);
      context.strokeStyle = property("--accent");
      context.lineWidth = 4;
      context.strokeRect(left - 4, top - 4, width + 8, height + 8);
    } else {
      ring(view.toX(map.x[i]), view.toY(map.y[i]), 8);
    }
  }

  function lasso() {
    context.beginPath();
    for (const [x, y] of outline) context.lineTo(x, y);
    context.closePath();
    context.strokeStyle = context.fillStyle = property("color");
    context.lineWidth = 2;
    context.setLineDash([5, 4]);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 0.1;
    context.fill();
    context.globalAlpha = 1;
  }

  // -- what is in view --------------------------------------------------------------------------------------------

  let remembering;
  function moved() {
    showCard(-1);
    draw();
    clearTimeout(remembering);
    remembering = setTimeout(remember, 250);
  }

  /** Puts the view into the address, so that Back from a result returns to it. */
  function remember() {
    clearTimeout(remembering);
    if (!canvas.isConnected) return; // another page is shown by now
    history.replaceState(history.state, "", location.pathname + location.search + view.hash);
  }
  addEventListener("hashchange", () => {
    if (!canvas.isConnected) return;
    view.follow(location.hash);
    draw();
  });

  /** Returns the image at a place in px: a picture, or else the nearest point. */
  function imageAt(px, py, reach) {
    return pictures.at(px, py) ?? map.nearest(view.fromX(px), view.fromY(py), reach / view.scale);
  }

  /** Shows a large picture of the point under the pointer. */
  function showCard(i) {
    const card = part("card");
    if (hover !== i) draw();
    hover = i;
    card.hidden = i < 0;
    if (i < 0) return;
    card.href = searchAddress(i);
    card.querySelector("img").src = thumbnail(i);
    card.querySelector("span").textContent = map.labels[map.label[i]] ?? "";
    const { offsetWidth: width, offsetHeight: height } = card;
    const [x, y] = [view.toX(map.x[i]), view.toY(map.y[i])];
    card.style.left = `${Math.min(Math.max(x - width / 2, 8), view.width - width - 8)}px`;
    card.style.top = `${y - height - 14 < 8 ? y + 14 : y - height - 14}px`;
  }

  // -- selecting --------------------------------------------------------------------------------------------------

  const selection = new Selection(part("selection"), atlas.dataset);

  function select(images, heading = "", pressed = null) {
    chosen = new Set(images);
    for (const button of part("legend").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.number === String(pressed)));
    }
    selection.show(images.map((i) => map.id[i]).sort((a, b) => a - b), heading);
    atlas.classList.toggle("has-selection", images.length > 0);
    recolour();
  }

  function selectWithin(path, where) {
    const images = map.within(path);
    select(images, `${counted(images.length)} ${where}`);
    showCard(-1);
  }

  function selectInView() {
    const { left, right, bottom, top } = view.rectangle();
    selectWithin([[left, bottom], [right, bottom], [right, top], [left, top]], "in view");
  }

  /** Selects all images of a label or group, and shows the whole map if none of them is in view. */
  function selectCategory(number, name) {
    const isPressed = part("legend").querySelector(`[data-number="${number}"][aria-pressed=true]`);
    const images = isPressed ? [] : [...way.column.keys()].filter((i) => way.column[i] === number);
    select(images, `${name}, ${counted(images.length)}`, number);
    if (images.length && !map.someIn(view.rectangle(), (i) => chosen.has(i))) view.fit();
    moved();
  }

  const selecting = () => part("select").getAttribute("aria-pressed") === "true";

  function setSelecting(on) {
    part("select").setAttribute("aria-pressed", String(on));
    part("move").setAttribute("aria-pressed", String(!on));
    canvas.style.cursor = on ? "crosshair" : "";
  }

  function picked(px, py, event) {
    const touch = event.pointerType === "touch";
    const i = imageAt(px, py, touch ? 24 : event.type === "keydown" ? MIDDLE : 10);
    if (i < 0) return chosen.size ? select([]) : undefined;
    // A finger hides the point under it, so the first tap only shows its picture.
    if (touch && !pictures.shown.includes(i)) return showCard(i);
    if (event.ctrlKey || event.metaKey) return window.open(searchAddress(i), "_blank", "noopener");
    remember();
    go(searchAddress(i));
  }

  listenForGestures(canvas, view, {
    moved,
    picked,
    hovered: (px, py) => {
      const i = px < 0 ? -1 : imageAt(px, py, 10);
      if (!selecting()) canvas.style.cursor = i >= 0 ? "pointer" : "";
      if (i !== hover) showCard(pictures.shown.includes(i) ? -1 : i);
    },
    outlined: (path) => selectWithin(path, "selected"),
    selecting,
    drawing: (path) => {
      outline = path;
      draw();
    },
  });

  const viewed = (change) => () => {
    change();
    moved();
  };
  const actions = {
    in: viewed(() => view.zoom(1.6)),
    out: viewed(() => view.zoom(1 / 1.6)),
    fit: viewed(() => view.fit()),
    move: () => setSelecting(false),
    select: () => setSelecting(true),
    listed: selectInView,
    clear: () => select([]),
  };
  for (const [name, act] of Object.entries(actions)) part(name).addEventListener("click", act);

  listenForKeys(canvas, view, {
    moved,
    picked,
    actions: {
      s: () => setSelecting(!selecting()),
      v: selectInView,
      Escape: () => chosen.size > 0 && select([]),
    },
  });

  // -- colours ----------------------------------------------------------------------------------------------------

  function recolour() {
    points.colour((i) => colourOf(map, way, i), isPale);
    draw();
  }

  function colourBy(at) {
    way = ways[at];
    layout?.nameBy(way.column ? way : ways[0]);
    fillLegend(part("legend"), way, selectCategory);
    recolour();
  }

  const chooser = part("colour");
  chooser.replaceChildren(...ways.map(({ title }) => new Option(title)));
  chooser.addEventListener("change", () => {
    select([]);
    colourBy(chooser.selectedIndex);
  });
  onScheme(() => colourBy(chooser.selectedIndex));

  // -- size -------------------------------------------------------------------------------------------------------

  new ResizeObserver(() => {
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !height) return;
    ratio = Math.min(devicePixelRatio, 2);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    view.resize(width, height);
    if (!layout) view.follow(location.hash);
    const change = layout ? view.whole / layout.whole : Infinity;
    if (change > 2 || change < 0.4) {
      layout = new Layout(map, view, (name) => pictures.widthOf(context, name));
      layout.nameBy(way.column ? way : ways[0]);
    }
    paint(FIRST); // at once, because resizing a canvas empties it
  }).observe(canvas);
  for (const event of ["focus", "blur"]) canvas.addEventListener(event, draw);
  part("key").open = !matchMedia("(max-width: 880px)").matches;
  colourBy(0);
}
