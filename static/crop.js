// The dialog that chooses a part of a picture, with a pointer or with keys.

import { addStyle } from "./photos.js";

const LEAST = 0.02; // smallest width and height, as a share of the picture
const STEP = 0.01; // of an arrow key, as a share of the picture; ten times as much with Shift
const CLICK = 8; // px; a shorter drag does not draw
const OPPOSITE = { left: "right", right: "left", top: "bottom", bottom: "top" };
const ALL = { left: 0, top: 0, right: 1, bottom: 1 };

export const WHOLE = "0,0,1,1"; // the box of a whole picture

/**
 * Lets the user choose a part of a picture. `sources` are its addresses and Blobs; the first that can be shown is used.
 * `box` is the initial part, "left,top,width,height" as fractions. Resolves to a box, which may be WHOLE, or to null
 * if nothing was chosen.
 */
export async function crop(sources, box) {
  await addStyle("crop.css");
  const dialog = document.body.appendChild(makeDialog());
  dialog.showModal();
  showPicture(dialog, sources);
  const part = await choose(dialog, fromBox(box || WHOLE)); // closing it restores the focus
  dialog.remove();
  return part && toBox(part);
}

function makeDialog() {
  const corner = (y, x) =>
    `<button type="button" data-x="${x}" data-y="${y}" aria-label="The ${y} ${x} corner: arrow keys move it"></button>`;
  const dialog = document.createElement("dialog");
  dialog.className = "crop";
  dialog.setAttribute("aria-labelledby", "crop-title");
  dialog.innerHTML = `
    <h2 id="crop-title">Search with a part</h2>
    <p class="facts">Drag across the part you want, or move a corner.</p>
    <div class="stage"><div class="frame" hidden>
      <img alt="The whole picture" draggable="false"><div class="shade"></div>
      <button type="button" class="part" aria-label="The part: arrow keys move it"></button>
      ${corner("top", "left")}${corner("top", "right")}${corner("bottom", "left")}${corner("bottom", "right")}
    </div></div>
    <output class="facts"></output>
    <form method="dialog">
      <button class="button" value="">Cancel</button>
      <button class="button" value="whole">Whole picture</button>
      <button class="button primary" value="part">Search with this part</button>
    </form>`;
  return dialog;
}

async function showPicture(dialog, sources) {
  const image = dialog.querySelector("img");
  for (const source of sources) {
    const isBlob = source instanceof Blob;
    image.src = isBlob ? URL.createObjectURL(source) : source;
    const isShown = await image.decode().then(() => true, () => false);
    if (isBlob) URL.revokeObjectURL(image.src); // the picture has been decoded
    if (!isShown) continue;
    const frame = dialog.querySelector(".frame");
    frame.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    frame.hidden = false;
    frame.querySelector("[data-x]").focus();
    return;
  }
  dialog.querySelector("output").textContent = "This picture cannot be shown here, so no part of it can be chosen.";
}

/** Resolves to the chosen part, or to null. */
function choose(dialog, part) {
  const frame = dialog.querySelector(".frame");
  const [, whole, apply] = dialog.querySelectorAll("form button");
  const isWhole = () => toBox(part) === WHOLE;
  const show = (next) => {
    part = next;
    for (const [side, value] of Object.entries(part)) frame.style.setProperty(`--${side}`, value);
    frame.classList.toggle("is-whole", isWhole());
    apply.disabled = isWhole();
    const percent = (size) => Math.round(100 * size);
    dialog.querySelector("output").textContent = isWhole()
      ? ""
      : `${percent(part.right - part.left)} % of its width, ${percent(part.bottom - part.top)} % of its height`;
  };
  whole.hidden = isWhole();
  show(part);

  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve({ whole: ALL, part }[dialog.returnValue] ?? null);
    });
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation(); // keep the keys from the page and the viewer
      if (!frame.contains(event.target)) return;
      if (event.key === "Enter") apply.click();
      else if (!event.key.startsWith("Arrow")) return;
      else show(changed(part, event.target, ...stepOf(event)));
      event.preventDefault();
    });
    frame.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return;
      const before = part;
      const start = placeIn(frame, event);
      const draws = !event.target.matches("button");
      frame.setPointerCapture(event.pointerId);
      frame.onpointermove = (move) => {
        const end = placeIn(frame, move);
        if (!draws) show(changed(before, event.target, end.x - start.x, end.y - start.y));
        else if (Math.hypot(move.clientX - event.clientX, move.clientY - event.clientY) > CLICK) show(drawn(start, end));
      };
      frame.onpointerup = frame.onpointercancel = ({ type }) => {
        frame.onpointermove = frame.onpointerup = frame.onpointercancel = null;
        // A box drawn with a mouse is searched at once. Fingers are less exact, so the corners can be moved first.
        if (draws && part !== before && type === "pointerup" && event.pointerType !== "touch") apply.click();
      };
    });
  });
}

/** Returns the part after a corner, or the part itself, was dragged. */
function changed(part, { dataset: { x, y } }, dx, dy) {
  if (x) return withSide(withSide(part, x, part[x] + dx), y, part[y] + dy);
  const right = clamp(dx, -part.left, 1 - part.right);
  const down = clamp(dy, -part.top, 1 - part.bottom);
  return { left: part.left + right, top: part.top + down, right: part.right + right, bottom: part.bottom + down };
}

/** Moves one side, at most to the edge of the picture or close to the opposite side. */
function withSide(part, side, value) {
  const other = part[OPPOSITE[side]];
  const isFirst = side === "left" || side === "top";
  return { ...part, [side]: isFirst ? clamp(value, 0, other - LEAST) : clamp(value, other + LEAST, 1) };
}

function drawn(start, end) {
  const [left, right] = interval(start.x, end.x);
  const [top, bottom] = interval(start.y, end.y);
  return { left, top, right, bottom };
}

function interval(a, b) {
  const low = Math.min(a, b, 1 - LEAST);
  return [low, Math.max(a, b, low + LEAST)];
}

function stepOf({ key, shiftKey }) {
  const step = (shiftKey ? 10 : 1) * STEP * (key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1);
  return key === "ArrowLeft" || key === "ArrowRight" ? [step, 0] : [0, step];
}

function placeIn(frame, { clientX, clientY }) {
  const { left, top, width, height } = frame.getBoundingClientRect();
  return { x: clamp((clientX - left) / width, 0, 1), y: clamp((clientY - top) / height, 0, 1) };
}

function fromBox(box) {
  const [left, top, width, height] = box.split(",").map(Number);
  return { left, top, right: left + width, bottom: top + height };
}

function toBox({ left, top, right, bottom }) {
  const round = (value) => Number(value.toFixed(4));
  return [round(left), round(top), round(round(right) - round(left)), round(round(bottom) - round(top))].join(",");
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
