// From which zoom on an image is shown as a picture: as soon as its place is free of those shown already. Each level is
// a zoom of the square root of two; a picture that is shown stays while one comes nearer, and panning changes nothing.

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

  /** Works out all levels up to that of `scale`, and returns that. */
  reach(scale) {
    const wanted = Levels.of(scale);
    if (this.at === undefined) this.at = wanted - 1;
    while (this.at < wanted && this.waiting.length) this.step((this.at += 1));
    return Math.max(wanted, this.at);
  }

  step(level) {
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
    for (const i of this.shown) add(i);
    this.waiting = this.waiting.filter((i) => {
      if (!free(i)) return true;
      add(i);
      this.shown.push(i);
      this.level[i] = level;
      return false;
    });
  }
}
