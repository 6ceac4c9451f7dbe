// Draws every image as a point, directly into pixels: 100 000 of them in a few milliseconds on any machine.

export class Points {
  constructor(map) {
    this.map = map;
    this.order = map.sorted; // so that points in view are close together
    this.x = Float32Array.from(this.order, (i) => map.x[i]);
    this.y = Float32Array.from(this.order, (i) => map.y[i]);
    this.colours = new Uint32Array(map.count);
    this.pale = new Uint8Array(map.count); // 1: drawn first, and nearly transparent
    this.mask = { radius: 0 };
  }

  /** Sets the colour of each image, [red, green, blue]; nearly transparent if `isPale(i)`. */
  colour(colourOf, isPale) {
    this.order.forEach((i, n) => {
      const [red, green, blue] = colourOf(i);
      this.colours[n] = red | (green << 8) | (blue << 16); // a pixel without its opacity
      this.pale[n] = isPale(i) ? 1 : 0;
    });
  }

  /** Draws the points in view on a 2D context with `ratio` pixels per px. */
  draw(context, view, ratio, radius) {
    const width = Math.round(view.width * ratio);
    const height = Math.round(view.height * ratio);
    if (this.image?.width !== width || this.image.height !== height) {
      this.image = new ImageData(width, height);
      this.pixels = new Int32Array(this.image.data.buffer);
    }
    this.pixels.fill(0);
    if (this.mask.radius !== radius * ratio) this.mask = disc(radius * ratio);
    const ranges = [...this.map.rangesIn(view.rectangle(1, radius + 1))];
    if (this.pale.includes(1)) this.pass(ranges, view, ratio, 1, 48);
    this.pass(ranges, view, ratio, 0, 255);
    context.putImageData(this.image, 0, 0);
  }

  pass(ranges, view, ratio, pale, opaque) {
    const { x, y, colours, pixels, image: { width, height } } = this;
    const { across, down, cover, reach } = this.mask;
    const scale = view.scale * ratio;
    const left = width / 2 - view.x * scale + 0.5;
    const top = height / 2 + view.y * scale + 0.5;
    const offsets = across.map((dx, s) => down[s] * width + dx);
    const alphas = cover.map((share) => Math.round((share * opaque) / 255));
    for (const [from, to] of ranges) {
      for (let i = from; i < to; i += 1) {
        if (this.pale[i] !== pale) continue;
        const px = Math.floor(x[i] * scale + left);
        const py = Math.floor(top - y[i] * scale);
        if (px < -reach || py < -reach || px >= width + reach || py >= height + reach) continue;
        const middle = py * width + px;
        const isInside = px >= reach && py >= reach && px < width - reach && py < height - reach;
        if (isInside && pixels[middle] >>> 24 >= opaque) continue; // covered by another point, as most are in dense areas
        const colour = colours[i];
        for (let s = 0; s < offsets.length; s += 1) {
          if (!isInside && !isOn(px + across[s], py + down[s], width, height)) continue;
          const at = middle + offsets[s];
          const alpha = alphas[s];
          if (alpha === opaque || pixels[at] >>> 24 < alpha) pixels[at] = colour | (alpha << 24);
        }
      }
    }
  }
}

const isOn = (column, row, width, height) => column >= 0 && row >= 0 && column < width && row < height;

/** Returns the pixels of a disc: their offsets across and down, and how much of each is covered, 0..255. */
function disc(radius) {
  const reach = Math.ceil(radius + 0.5);
  const [across, down, cover] = [[], [], []];
  for (let dy = -reach; dy <= reach; dy += 1) {
    for (let dx = -reach; dx <= reach; dx += 1) {
      const share = Math.round(255 * Math.min(Math.max(radius + 0.5 - Math.hypot(dx, dy), 0), 1));
      if (share <= 8) continue;
      across.push(dx);
      down.push(dy);
      cover.push(share);
    }
  }
  return { radius, reach, across: Int32Array.from(across), down: Int32Array.from(down), cover: Int32Array.from(cover) };
}
