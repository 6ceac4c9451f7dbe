// Draws images as pictures where there is room for them, and loads those that are in view, the middle ones first.

import { css } from "./map-colours.js";

const AT_ONCE = 6; // requests
const KEPT = 600; // small pictures
const LARGEST = 220; // px, that a kept one is wide

export class Pictures {
  constructor(map, address, redraw) {
    this.map = map;
    this.address = address;
    this.redraw = redraw;
    this.kept = new Map(); // image -> bitmap, or null where there is none; the one used last is last
    this.running = new Set();
    this.wanted = [];
  }

  /** Draws `shown`, the images to show as pictures, each within `side` px; `frame(i)` is the colour around it. */
  draw(context, view, shown, side, frame) {
    const middle = (i) => Math.hypot(view.toX(this.map.x[i]) - view.width / 2, view.toY(this.map.y[i]) - view.height / 2);
    this.wanted = [];
    for (const i of shown) {
      const { left, top, width, height } = this.box(i, view, side);
      const bitmap = this.kept.get(i);
      context.fillStyle = frame(i);
      context.fillRect(left - 2, top - 2, width + 4, height + 4);
      if (bitmap) {
        this.kept.delete(i);
        this.kept.set(i, bitmap);
        context.drawImage(bitmap, ...cut(bitmap, width / height), left, top, width, height);
      } else {
        context.fillStyle = css(this.map.colour.subarray(3 * i, 3 * i + 3));
        context.fillRect(left, top, width, height);
        if (bitmap === undefined && !this.running.has(i)) this.wanted.push(i);
      }
    }
    this.wanted.sort((a, b) => middle(a) - middle(b));
    this.load();
  }

  /** Where image `i` stands, in px: its proportions are kept, but for very long ones. */
  box(i, view, side) {
    const [width, height] = shape(this.map, i).map((part) => Math.round(part * side));
    return {
      left: Math.round(view.toX(this.map.x[i]) - width / 2),
      top: Math.round(view.toY(this.map.y[i]) - height / 2),
      width,
      height,
    };
  }

  load() {
    while (this.running.size < AT_ONCE && this.wanted.length) this.fetch(this.wanted.shift());
  }

  async fetch(i) {
    if (!this.map.version[i]) {
      this.kept.set(i, null); // features without a picture
      return;
    }
    this.running.add(i);
    let bitmap = null;
    try {
      const response = await fetch(this.address(i));
      if (response.ok) {
        const resizeWidth = Math.min(LARGEST, (LARGEST * this.map.ratio[i]) / 1000 || LARGEST);
        bitmap = await createImageBitmap(await response.blob(), {
          resizeWidth: Math.max(1, Math.round(resizeWidth * devicePixelRatio)),
          resizeQuality: "medium",
        });
      }
    } catch {
      // what cannot be loaded stays a plain colour
    }
    this.running.delete(i);
    this.kept.set(i, bitmap);
    for (const [old, gone] of this.kept) {
      if (this.kept.size <= KEPT) break;
      gone?.close();
      this.kept.delete(old);
    }
    this.redraw();
    this.load();
  }
}

/** Width and height of image `i`, the longer one 1; very long ones are cut. */
export function shape(map, i) {
  const ratio = Math.min(Math.max(map.ratio[i] / 1000, 0.6), 1.8);
  return ratio >= 1 ? [1, 1 / ratio] : [ratio, 1];
}

/** The part of a bitmap that fills a place of another ratio. */
function cut({ width, height }, ratio) {
  const wide = Math.min(width, height * ratio);
  const high = Math.min(height, width / ratio);
  return [(width - wide) / 2, (height - high) / 2, wide, high];
}
