// From which zoom on an image is shown as a picture: as soon as its place is free of those shown already. Each level is
// a zoom of the square root of two; a picture that is shown stays while one comes nearer, and panning changes nothing.

const AT_ONCE = 256; // images between two looks at the clock

export class Levels {
  /** A picture is at most `side` px large, as `size(i)` = [width, height] within 1 says, with `gap` px to the next. */
  constructor(map, order, side, gap, size) {
    this.map = map;
    this.side = side;
    this.gap = gap;
    this.wide = Float32Array.from({ length: map.count }, (_, i) => size(i)[0]);
    this.high = Float32Array.from({ length: map.count }, (_, i) => size(i)[1]);
    this.waiting = [...order];
    this.shown = [];
    this.level = new Int16Array(map.count).fill(32767);
    this.at = undefined;
  }

  static of(scale) {
    return Math.floor(2 * Math.log2(scale));
  }

  /**
   * Works out levels up to that of `scale` for at most `budget` ms, lest a leap over many of them stop the picture, and
   * returns how far they are worked out, but no further than that of `scale`. `behind`: more is to be done.
   */
  reach(scale, budget = 6) {
    const wanted = Levels.of(scale);
    this.at ??= wanted - 1;
    const until = performance.now() + budget;
    while (this.at < wanted && this.waiting.length) {
      this.step ??= this.steps(this.at + 1);
      while (!this.step.next().done) {
        if (performance.now() < until) continue;
        this.behind = true;
        return this.at;
      }
      this.step = null;
      this.at += 1;
    }
    this.behind = false;
    return Math.min(wanted, this.at);
  }

  /** One level, a few hundred images at a time. */
  *steps(level) {
    const { x, y } = this.map;
    const { wide, high } = this;
    const unit = 2 ** (level / 2); // px
    const side = this.side / unit;
    const gap = this.gap / unit;
    const box = side + gap;
    const cells = new Map(); // as large as a picture can be: only those in cells beside each other can touch
    const key = (column, row) => column * 67108859 + row;
    const add = (i) => {
      const cell = key(Math.floor(x[i] / box), Math.floor(y[i] / box));
      const there = cells.get(cell);
      if (there) there.push(i);
      else cells.set(cell, [i]);
    };
    const free = (i) => {
      const column = Math.floor(x[i] / box);
      const row = Math.floor(y[i] / box);
      for (let c = column - 1; c <= column + 1; c += 1) {
        for (let r = row - 1; r <= row + 1; r += 1) {
          for (const other of cells.get(key(c, r)) ?? []) {
            const across = Math.abs(x[i] - x[other]) < (side * (wide[i] + wide[other])) / 2 + gap;
            if (across && Math.abs(y[i] - y[other]) < (side * (high[i] + high[other])) / 2 + gap) return false;
          }
        }
      }
      return true;
    };
    let done = 0;
    for (const i of this.shown) {
      add(i);
      if ((done += 1) % AT_ONCE === 0) yield;
    }
    const left = [];
    const found = [];
    for (const i of this.waiting) {
      if (free(i)) {
        add(i);
        found.push(i);
        this.level[i] = level;
      } else {
        left.push(i);
      }
      if ((done += 1) % AT_ONCE === 0) yield;
    }
    this.waiting = left;
    this.shown = this.shown.concat(found);
  }
}
