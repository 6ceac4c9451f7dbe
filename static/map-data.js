// Reads the map that the server packs, and finds images by their place on it.

const TYPES = { f8: Float64Array, f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
const PER_CELL = 8; // images in a cell of the grid, on average
export const NONE = 0xffff; // no label, no group

/** Resolves to the `MapData` at this address. */
export async function fetchMap(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The server answered with an error (${response.status}). Try again in a moment.`);
  const bytes = await response.arrayBuffer();
  const size = new DataView(bytes).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
  const columns = {};
  for (const [name, [type, at, length]] of Object.entries(head.columns)) {
    columns[name] = new TYPES[type](bytes, 4 + size + at, length);
  }
  const labels = head.labels.map((label) => label.replaceAll("_", " ")); // for reading only
  return new MapData({ ...head, labels, columns });
}

export class MapData {
  constructor({ count, labels, clusters, columns }) {
    Object.assign(this, { count, labels, clusters }, columns); // id, x, y, version, label, cluster, ratio, colour
    this.box = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
    for (let i = 0; i < count; i += 1) {
      this.box.left = Math.min(this.box.left, this.x[i]);
      this.box.right = Math.max(this.box.right, this.x[i]);
      this.box.bottom = Math.min(this.box.bottom, this.y[i]);
      this.box.top = Math.max(this.box.top, this.y[i]);
    }
    this.sortIntoCells();
  }

  sortIntoCells() {
    const { left, right, bottom, top } = this.box;
    this.side = Math.max(1, Math.ceil(Math.sqrt(this.count / PER_CELL)));
    this.cellWidth = Math.max(right - left, 1e-9) / this.side;
    this.cellHeight = Math.max(top - bottom, 1e-9) / this.side;
    // `sorted` has the images by cell, in random order within each cell; `starts` has the first position of each cell.
    this.starts = new Uint32Array(this.side ** 2 + 1);
    const cells = new Uint32Array(this.count);
    for (let i = 0; i < this.count; i += 1) {
      cells[i] = this.row(this.y[i]) * this.side + this.column(this.x[i]);
      this.starts[cells[i] + 1] += 1;
    }
    for (let c = 0; c < this.side ** 2; c += 1) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.sorted = new Uint32Array(this.count);
    for (const i of shuffled(this.count)) this.sorted[next[cells[i]]++] = i;
  }

  column(x) {
    return Math.min(Math.max(Math.floor((x - this.box.left) / this.cellWidth), 0), this.side - 1);
  }

  row(y) {
    return Math.min(Math.max(Math.floor((y - this.box.bottom) / this.cellHeight), 0), this.side - 1);
  }

  /** Returns [width, height] of image `i`, the longer side being 1; extreme ratios are cropped. */
  shape(i) {
    const ratio = Math.min(Math.max(this.ratio[i] / 1000, 0.6), 1.8);
    return ratio >= 1 ? [1, 1 / ratio] : [ratio, 1];
  }

  /** Yields ranges of `sorted`, [start, end], that together contain all images within the rectangle. */
  *rangesIn({ left, right, bottom, top }) {
    const [from, to] = [this.column(left), this.column(right)];
    for (let row = this.row(bottom); row <= this.row(top); row += 1) {
      yield [this.starts[row * this.side + from], this.starts[row * this.side + to + 1]];
    }
  }

  /** Calls `use(i)` for the images within the rectangle until it returns true; returns whether it did. */
  someIn(rectangle, use) {
    const { left, right, bottom, top } = rectangle;
    for (const [from, to] of this.rangesIn(rectangle)) {
      for (let at = from; at < to; at += 1) {
        const i = this.sorted[at];
        const isIn = this.x[i] >= left && this.x[i] <= right && this.y[i] >= bottom && this.y[i] <= top;
        if (isIn && use(i) === true) return true;
      }
    }
    return false;
  }

  /** Returns the image nearest to (x, y) within `reach` for which `passes(i)`, or -1. */
  nearest(x, y, reach = Infinity, passes = () => true) {
    const { left, right, bottom, top } = this.box;
    const all = Math.hypot(right - left, top - bottom) + Math.hypot(x - (left + right) / 2, y - (bottom + top) / 2);
    for (let within = Math.min(reach, Math.max(this.cellWidth, this.cellHeight)); ; within = Math.min(2 * within, reach)) {
      let best = -1;
      let least = within ** 2;
      this.someIn({ left: x - within, right: x + within, bottom: y - within, top: y + within }, (i) => {
        const distance = (this.x[i] - x) ** 2 + (this.y[i] - y) ** 2;
        if (distance <= least && passes(i)) [best, least] = [i, distance];
      });
      if (best >= 0 || within >= reach || within > all) return best;
    }
  }

  /** Returns all images within the closed outline [[x, y], ...], by the even-odd rule. */
  within(outline) {
    const xs = outline.map(([x]) => x);
    const ys = outline.map(([, y]) => y);
    const images = [];
    const around = { left: Math.min(...xs), right: Math.max(...xs), bottom: Math.min(...ys), top: Math.max(...ys) };
    this.someIn(around, (i) => {
      if (inside(this.x[i], this.y[i], outline)) images.push(i);
    });
    return images;
  }

  /** Returns the median distance between neighbours, estimated from a few hundred images. */
  spacing() {
    const step = Math.ceil(this.count / 300);
    const distances = [];
    for (let i = 0; i < this.count; i += step) {
      const apart = (j) => this.x[j] !== this.x[i] || this.y[j] !== this.y[i];
      const next = this.nearest(this.x[i], this.y[i], Infinity, apart);
      if (next >= 0) distances.push(Math.hypot(this.x[next] - this.x[i], this.y[next] - this.y[i]));
    }
    return distances.sort((a, b) => a - b)[distances.length >> 1] ?? 1;
  }
}

function inside(x, y, outline) {
  let odd = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
    const [ax, ay] = outline[i];
    const [bx, by] = outline[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

/** Returns the numbers below `count` in a random order that is the same each time. */
export function shuffled(count) {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let state = 1;
  for (let i = count - 1; i > 0; i -= 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const j = Math.floor((state / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
