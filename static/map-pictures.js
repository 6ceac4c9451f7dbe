// Draws images as pictures, with names below some of them, and loads those in view, starting in the middle.

import { css } from "./map-legend.js";

const AT_ONCE = 6; // requests
const KEPT = 700; // pictures in memory
const LARGEST = 220; // px, width of a picture in memory
const NAME = { font: "600 12px system-ui, sans-serif", height: 20, padding: 8, dot: 4, gap: 6 }; // px

export class Pictures {
  constructor(map, address, redraw) {
    this.map = map;
    this.address = address;
    this.redraw = redraw;
    this.kept = new Map(); // image -> bitmap, or null if there is none; least recently used first
    this.running = new Set();
    this.wanted = [];
    this.shown = [];
  }

  /** Draws `images`, at most `side` px each, with a frame in the colour `frame(i)`. */
  draw(context, view, images, side, frame) {
    const fromMiddle = (i) => Math.hypot(this.map.x[i] - view.x, this.map.y[i] - view.y);
    Object.assign(this, { view, side, shown: images, wanted: [] });
    for (const i of images) {
      const { left, top, width, height } = this.box(i);
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
    this.wanted.sort((a, b) => fromMiddle(a) - fromMiddle(b));
    this.load();
  }

  /** Returns the width of a name in px, including the space around it. */
  widthOf(context, name) {
    context.font = NAME.font;
    return context.measureText(name).width + 2 * NAME.padding + 3 * NAME.dot + NAME.gap;
  }

  /** Draws `name(i)` below each of these pictures, with a dot in its colour. */
  drawNames(context, view, images, name, colour) {
    const { color: ink, backgroundColor: paper } = getComputedStyle(context.canvas);
    context.textBaseline = "middle";
    for (const i of images) {
      const text = name(i);
      const box = this.box(i);
      const width = this.widthOf(context, text) - NAME.gap;
      const centred = Math.round(box.left + (box.width - width) / 2);
      const left = Math.min(Math.max(centred, Math.min(box.left, 4)), Math.max(box.left + box.width, view.width - 4) - width);
      const middle = box.top + box.height + 4 + NAME.height / 2;
      context.beginPath();
      context.roundRect(left, middle - NAME.height / 2, width, NAME.height, NAME.height / 2);
      context.fillStyle = paper;
      context.fill();
      context.beginPath();
      context.arc(left + NAME.padding + NAME.dot, middle, NAME.dot, 0, 2 * Math.PI);
      context.fillStyle = colour(i);
      context.fill();
      context.fillStyle = ink;
      context.fillText(text, left + NAME.padding + 3 * NAME.dot, middle + 0.5);
    }
  }

  /** Returns the place of the picture of image `i` in px. */
  box(i) {
    const [width, height] = this.map.shape(i).map((part) => Math.round(part * this.side));
    return {
      left: Math.round(this.view.toX(this.map.x[i]) - width / 2),
      top: Math.round(this.view.toY(this.map.y[i]) - height / 2),
      width,
      height,
    };
  }

  /** Returns the image whose picture is at a place in px, or undefined. */
  at(px, py) {
    return this.shown.find((i) => {
      const { left, top, width, height } = this.box(i);
      return px >= left && px < left + width && py >= top && py < top + height;
    });
  }

  load() {
    while (this.running.size < AT_ONCE && this.wanted.length) this.fetch(this.wanted.shift());
  }

  async fetch(i) {
    if (!this.map.version[i]) {
      this.kept.set(i, null); // imported features without a picture
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
      // a picture that cannot be loaded stays a plain colour
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

/** Returns the part of a bitmap that fills a place with another ratio. */
function cut({ width, height }, ratio) {
  const wide = Math.min(width, height * ratio);
  const high = Math.min(height, width / ratio);
  return [(width - wide) / 2, (height - high) / 2, wide, high];
}
