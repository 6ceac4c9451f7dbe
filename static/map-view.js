// Where one looks: the middle of the view on the map, and how many pixels a unit of the map takes.

const NEAREST = 4000; // times as large as the whole map in view
const MARGIN = 0.06; // of the view, around the whole map

export class View {
  constructor(map) {
    this.map = map;
    this.box = bounds(map);
    this.width = this.height = 1;
    this.x = this.y = 0;
    this.scale = this.whole = 1;
    this.covered = 0;
  }

  /** Takes a new size in px, of which `covered` at the right; what is in the middle stays there. */
  resize(width, height, covered = 0) {
    const fits = this.scale === this.whole;
    const { left, right, bottom, top } = this.box;
    this.width = width;
    this.height = height;
    this.covered = covered;
    const room = 1 - 2 * MARGIN;
    this.whole = Math.min(
      Math.max((width - covered) * room, 40) / Math.max(right - left, 1e-6),
      Math.max(height * room, 40) / Math.max(top - bottom, 1e-6),
    );
    if (fits) this.fit();
    else this.scale = Math.max(this.scale, this.whole);
  }

  /** The whole map. */
  fit() {
    const { left, right, bottom, top } = this.box;
    this.x = (left + right) / 2;
    this.y = (bottom + top) / 2;
    this.scale = this.whole;
    this.x += this.covered / 2 / this.scale;
  }

  /** Zooms by a factor; the point under (px, py) stays under it. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.whole), this.whole * NEAREST);
    const by = 1 / this.scale - 1 / scale;
    this.x += (px - this.width / 2) * by;
    this.y -= (py - this.height / 2) * by;
    this.scale = scale;
    this.keepIn();
  }

  /** Moves the map by so many px. */
  pan(dx, dy) {
    this.x -= dx / this.scale;
    this.y += dy / this.scale;
    this.keepIn();
  }

  /** Some of the map stays in view. */
  keepIn() {
    const { left, right, bottom, top } = this.box;
    this.x = Math.min(Math.max(this.x, left), right);
    this.y = Math.min(Math.max(this.y, bottom), top);
  }

  toX(x) {
    return (x - this.x) * this.scale + this.width / 2;
  }

  toY(y) {
    return (this.y - y) * this.scale + this.height / 2;
  }

  fromX(px) {
    return (px - this.width / 2) / this.scale + this.x;
  }

  fromY(py) {
    return this.y - (py - this.height / 2) / this.scale;
  }
}

function bounds({ x, y, count }) {
  const box = { left: Infinity, right: -Infinity, bottom: Infinity, top: -Infinity };
  for (let i = 0; i < count; i += 1) {
    box.left = Math.min(box.left, x[i]);
    box.right = Math.max(box.right, x[i]);
    box.bottom = Math.min(box.bottom, y[i]);
    box.top = Math.max(box.top, y[i]);
  }
  return box;
}
