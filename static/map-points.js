// Draws every image as a point, straight into pixels: 100 000 of them in a few milliseconds, on any machine. They come in
// an order of their own, in which no part of the map comes last.

import { shuffled } from "./map-layout.js";

export class Points {
  constructor(map) {
    this.order = shuffled(map.count);
    this.x = Float32Array.from(this.order, (i) => map.x[i]);
    this.y = Float32Array.from(this.order, (i) => map.y[i]);
    this.colours = new Uint32Array(map.count);
    this.pale = new Uint8Array(map.count); // 1: drawn first, and hardly visible
    this.mask = { radius: 0, stamps: [] };
  }

  /** Gives each image its colour, [red, green, blue]; where `isPale(i)`, it is hardly visible. */
  colour(colourOf, isPale) {
    this.order.forEach((i, n) => {
      const [red, green, blue] = colourOf(i);
      this.colours[n] = red | (green << 8) | (blue << 16); // a pixel without its opacity
      this.pale[n] = isPale(i) ? 1 : 0;
    });
  }

  /** Draws those in view on a 2D context of `ratio` pixels to one px. */
  draw(context, view, ratio, radius) {
    const width = Math.round(view.width * ratio);
    const height = Math.round(view.height * ratio);
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    if (this.mask.radius !== radius * ratio) this.mask = disc(radius * ratio);
    const some = this.pale.includes(1);
    if (some) this.pass(view, ratio, width, height, 1, 48);
    this.pass(view, ratio, width, height, 0, 255);
    context.putImageData(this.image, 0, 0);
  }

  pass(view, ratio, width, height, pale, opaque) {
    const { x, y, colours, pixels } = this;
    const { stamps, reach } = this.mask;
    const scale = view.scale * ratio;
    const left = width / 2 - view.x * scale;
    const top = height / 2 + view.y * scale;
    for (let i = 0; i < x.length; i += 1) {
      if (this.pale[i] !== pale) continue;
      const px = Math.round(x[i] * scale + left);
      const py = Math.round(top - y[i] * scale);
      if (px < -reach || py < -reach || px >= width + reach || py >= height + reach) continue;
      const middle = py * width + px;
      const isInside = px >= reach && py >= reach && px < width - reach && py < height - reach;
      if (isInside && pixels[middle] >>> 24 >= opaque) continue; // covered by another: in a crowd most are
      const colour = colours[i];
      for (let s = 0; s < stamps.length; s += 3) {
        if (!isInside && !isOn(px + stamps[s], py + stamps[s + 1], width, height)) continue;
        const at = middle + stamps[s + 1] * width + stamps[s];
        const alpha = (stamps[s + 2] * opaque) / 255;
        if (alpha === opaque || pixels[at] >>> 24 < alpha) pixels[at] = (colour | (alpha << 24)) >>> 0;
      }
    }
  }
}

const isOn = (column, row, width, height) => column >= 0 && row >= 0 && column < width && row < height;

/** The pixels of a disc: across, down, and how much of each is covered, 0..255. */
function disc(radius) {
  const reach = Math.ceil(radius + 0.5);
  const stamps = [];
  for (let down = -reach; down <= reach; down += 1) {
    for (let across = -reach; across <= reach; across += 1) {
      const cover = Math.round(255 * Math.min(Math.max(radius + 0.5 - Math.hypot(across, down), 0), 1));
      if (cover > 8) stamps.push(across, down, cover);
    }
  }
  return { radius, reach, stamps: Int16Array.from(stamps) };
}
