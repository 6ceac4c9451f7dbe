// Which images lie where: the nearest one to a point, all within an outline.

const PER_CELL = 8; // images in a cell of the grid, on average

export class Places {
  constructor(map, box) {
    const { x, y, count } = map;
    this.map = map;
    this.box = box;
    this.side = Math.max(1, Math.ceil(Math.sqrt(count / PER_CELL)));
    this.cellX = Math.max(box.right - box.left, 1e-9) / this.side;
    this.cellY = Math.max(box.top - box.bottom, 1e-9) / this.side;
    // Images sorted by cell; `starts` says where each cell begins.
    this.starts = new Uint32Array(this.side ** 2 + 1);
    const cells = new Uint32Array(count);
    for (let i = 0; i < count; i += 1) {
      cells[i] = this.row(y[i]) * this.side + this.column(x[i]);
      this.starts[cells[i] + 1] += 1;
    }
    for (let c = 0; c < this.side ** 2; c += 1) this.starts[c + 1] += this.starts[c];
    const next = this.starts.slice();
    this.sorted = new Uint32Array(count);
    for (let i = 0; i < count; i += 1) this.sorted[next[cells[i]]++] = i;
  }

  column(x) {
    return Math.min(Math.max(Math.floor((x - this.box.left) / this.cellX), 0), this.side - 1);
  }

  row(y) {
    return Math.min(Math.max(Math.floor((y - this.box.bottom) / this.cellY), 0), this.side - 1);
  }

  /** Calls `use(i)` for all images in cells that touch the rectangle. */
  near(left, right, bottom, top, use) {
    const [from, to] = [this.column(left), this.column(right)];
    for (let row = this.row(bottom); row <= this.row(top); row += 1) {
      const cells = row * this.side;
      for (let at = this.starts[cells + from]; at < this.starts[cells + to + 1]; at += 1) use(this.sorted[at]);
    }
  }

  /** The image nearest to (x, y) within `reach`, or -1. */
  nearest(x, y, reach) {
    let best = -1;
    let least = reach ** 2;
    this.near(x - reach, x + reach, y - reach, y + reach, (i) => {
      const far = (this.map.x[i] - x) ** 2 + (this.map.y[i] - y) ** 2;
      if (far <= least) [best, least] = [i, far];
    });
    return best;
  }

  /** All images within the closed outline [[x, y], ...], even-odd. */
  within(outline) {
    const xs = outline.map(([x]) => x);
    const ys = outline.map(([, y]) => y);
    const found = [];
    this.near(Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys), (i) => {
      if (inside(this.map.x[i], this.map.y[i], outline)) found.push(i);
    });
    return found;
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
