// Which part of the map is in view: its middle, how many pixels a unit of the map takes, and both as an address.

const MARGIN = 0.06; // of the view, around the whole map
const APART = 160; // px between neighbours, at the nearest
const INSIDE = 0.7; // of the way from the middle to the edge: some image always lies there

export class View {
  constructor(map) {
    this.map = map;
    this.width = this.height = 1;
    this.x = this.y = 0;
    this.scale = this.whole = 1;
    this.nearest = APART / map.spacing();
  }

  /** Takes a new size in px; what is in the middle stays there. */
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

  /** How much nearer this is than the whole map. */
  get zoomed() {
    return this.scale / this.whole;
  }

  /** The whole map. */
  fit() {
    const { left, right, bottom, top } = this.map.box;
    this.set((left + right) / 2, (bottom + top) / 2, this.whole);
  }

  /** Looks at (x, y); where no image would be in view, at the nearest one. */
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

  /** Zooms by a factor; the point under (px, py) stays under it. */
  zoom(factor, px = this.width / 2, py = this.height / 2) {
    const scale = Math.min(Math.max(this.scale * factor, this.whole), Math.max(this.nearest, 4 * this.whole));
    const by = 1 / this.scale - 1 / scale;
    this.set(this.x + (px - this.width / 2) * by, this.y - (py - this.height / 2) * by, scale);
  }

  /** Moves the map by so many px. */
  pan(dx, dy) {
    if (this.scale > this.whole) this.set(this.x - dx / this.scale, this.y + dy / this.scale, this.scale);
  }

  /** What is in view, or a part of it around the middle, with `more` px on each side. */
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

  /** The end of the address, "#at=x,y,zoom"; nothing for the whole map. */
  get hash() {
    if (this.scale === this.whole) return "";
    const digits = (number) => Number(number.toPrecision(6));
    return `#at=${digits(this.x)},${digits(this.y)},${Number(this.zoomed.toPrecision(4))}`;
  }

  /** Looks where an address says. */
  follow(hash) {
    const [x, y, zoomed] = (/^#at=([^,]+),([^,]+),([^,]+)$/.exec(hash) ?? []).slice(1).map(Number);
    if ([x, y, zoomed].every(Number.isFinite)) this.set(x, y, zoomed * this.whole);
    else this.fit();
  }
}
