// The part of the map in view: its centre, its scale in pixels per map unit, and both as part of the address.

const MARGIN = 0.06; // around the whole map, as a share of the view
const APART = 160; // px between neighbours at the largest scale
const INSIDE = 0.7; // there is always an image within this share of the view

export class View {
  constructor(map) {
    this.map = map;
    this.width = this.height = 1;
    this.x = this.y = 0;
    this.scale = this.whole = 1;
    this.nearest = APART / map.spacing();
  }

  /** Sets the size of the view in px, and keeps its centre. */
  resize(width, height) {
    const fits = this.scale === this.whole;
    const { left, right, bottom, top } = this.map.box;
    const room = 1 - 2 * MARGIN;
    [this.width, this.height] = [width, height];
    this.whole = Math.min(
      Math.max(width * room, 40) / Math.max(right - left, 1e-6),
      Math.max(height * room, 40) / Math.max(top - bottom, 1e-6),
    );
    if (fits) this.fit();
    else this.set(this.x, this.y, this.scale);
  }

  /** The scale relative to the whole map. */
  get zoomed() {
    return this.scale / this.whole;
  }

  /** Shows the whole map. */
  fit() {
    const { left, right, bottom, top } = this.map.box;
    this.set((left + right) / 2, (bottom + top) / 2, this.whole);
  }

  /** Centres the view on (x, y), or closer to the nearest image if none would be in view. */
  set(x, y, scale) {
    this.scale = Math.min(Math.max(scale, this.whole), Math.max(this.nearest, 4 * this.whole));
    [this.x, this.y] = [x, y];
    if (this.scale === this.whole) {
      const { left, right, bottom, top } = this.map.box;
      [this.x, this.y] = [(left + right) / 2, (bottom + top) / 2];
      return;
    }
    if (this.map.someIn(this.rectangle(INSIDE), () => true)) return;
    const i = this.map.nearest(x, y);
    const reach = { x: (INSIDE * this.width) / 2 / this.scale, y: (INSIDE * this.height) / 2 / this.scale };
    this.x = Math.min(Math.max(x, this.map.x[i] - reach.x), this.map.x[i] + reach.x);
    this.y = Math.min(Math.max(y, this.map.y[i] - reach.y), this.map.y[i] + reach.y);
  }

  /** Zooms by a factor; the point at (px, py) stays in place. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.whole), Math.max(this.nearest, 4 * this.whole));
    const by = 1 / this.scale - 1 / scale;
    this.set(this.x + (px - this.width / 2) * by, this.y - (py - this.height / 2) * by, scale);
  }

  /** Moves the map by a number of px. */
  pan(dx, dy) {
    if (this.scale > this.whole) this.set(this.x - dx / this.scale, this.y + dy / this.scale, this.scale);
  }

  /** Returns the rectangle in view, or a part of it around the centre, with `more` px on each side. */
  rectangle(part = 1, more = 0) {
    const x = ((part * this.width) / 2 + more) / this.scale;
    const y = ((part * this.height) / 2 + more) / this.scale;
    return { left: this.x - x, right: this.x + x, bottom: this.y - y, top: this.y + y };
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

  /** The end of the address, "#at=x,y,zoom"; empty for the whole map. */
  get hash() {
    if (this.scale === this.whole) return "";
    const digits = (number) => Number(number.toPrecision(6));
    return `#at=${digits(this.x)},${digits(this.y)},${Number(this.zoomed.toPrecision(4))}`;
  }

  /** Shows the view in an address. */
  follow(hash) {
    const [x, y, zoomed] = (/^#at=([^,]+),([^,]+),([^,]+)$/.exec(hash) ?? []).slice(1).map(Number);
    if ([x, y, zoomed].every(Number.isFinite)) this.set(x, y, zoomed * this.whole);
    else this.fit();
  }
}
