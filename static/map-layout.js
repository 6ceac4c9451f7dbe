// From which zoom on an image is shown as a picture, and with its label's name: as soon as there is room, where images
// crowd first. Each level is a zoom of the square root of two. What is shown stays while one comes nearer, and panning
// changes nothing. Pictures grow more slowly than the distances between them, so they never touch.

import { NONE, shuffled } from "./map-data.js";

const SMALLEST = [40, 56]; // px, the longer side of a picture with the whole map in view: on a phone, on a large window
const LARGEST = 110;
const NEAREST = 220;
const COVERED = 0.4; // of the view by pictures, where there are few
const GROWTH = 0.3; // of a picture: a power of the zoom
const GAP = 0.22; // between pictures, of their side
const LONELY = 8000; // of so many images one that stands alone waits until one comes nearer
const NAME_HEIGHT = 24; // px, with what is left free
const LETTERS = 22; // of a name
const SAME = [140, 340]; // px between two places that have the same name, on a phone and in a large window
const PAUSE = 128; // images between two looks at the clock
const NEVER = 32767;

const levelOf = (scale) => Math.floor(2 * Math.log2(scale));

export class Layout {
  /** `widthOf(name)` is how many px a name takes. */
  constructor(map, view, widthOf) {
    Object.assign(this, { map, widthOf });
    this.whole = view.whole;
    const fits = Math.sqrt((COVERED * view.width * view.height) / Math.max(map.count, 1));
    const smallest = Math.min(Math.max(view.width / 20, SMALLEST[0]), SMALLEST[1]);
    this.side = Math.min(Math.max(fits, smallest), LARGEST);
    this.apart = Math.min(Math.max(0.45 * Math.min(view.width, view.height), SAME[0]), SAME[1]);
    this.crowd = crowds(map);
    this.waiting = shuffled(map.count).sort((a, b) => this.crowd[b] - this.crowd[a]);
    this.pictures = { level: new Int16Array(map.count).fill(NEVER), shown: [] };
    this.level = levelOf(this.whole) - 3; // up to which pictures are placed; a smaller window needs levels before the first
    this.first = this.level;
  }

  /** Names each image by `names[column[i]]` from here on. */
  nameBy({ column, names }) {
    this.column = column;
    this.texts = names.map((name) => (name.length > LETTERS ? `${name.slice(0, LETTERS - 1)}…` : name));
    this.widths = this.texts.map(this.widthOf);
    this.names = { level: new Int16Array(this.map.count).fill(NEVER), shown: [] };
    this.named = this.first;
    this.task = this.work();
  }

  /** The longer side of a picture in px. */
  sideAt(scale) {
    return Math.min(this.side * (scale / this.whole) ** GROWTH, NEAREST);
  }

  nameOf(i) {
    return this.texts[this.column?.[i] ?? NONE] ?? "";
  }

  /** What is in view: {pictures, names, side}. Works for about `budget` ms; `behind` says that there is more to do. */
  inView(view, budget = 3) {
    this.wanted = levelOf(view.scale);
    const until = performance.now() + budget;
    do this.behind = !this.task.next().value;
    while (this.behind && performance.now() < until);
    const side = this.sideAt(view.scale);
    const pictures = [];
    this.map.someIn(view.rectangle(1, side), (i) => {
      if (this.pictures.level[i] <= this.wanted) pictures.push(i);
    });
    return { side, pictures, names: pictures.filter((i) => this.names.level[i] <= this.wanted) };
  }

  /** Places pictures and names level by level, some at a time; yields true when all that is wanted is done. */
  *work() {
    for (;;) {
      if (this.level < this.wanted) {
        const unit = 2 ** ((this.level + 1) / 2); // px
        const room = new PictureRoom(this.map, this.sideAt(unit) / unit, this.crowd, this.map.count / LONELY / (unit / this.whole) ** 2);
        this.waiting = yield* extend(this.pictures, this.level + 1, this.waiting, room);
        this.level += 1;
      } else if (this.named < this.wanted) {
        const level = this.named + 1;
        const unit = 2 ** (level / 2);
        const { shown } = this.pictures;
        const candidates = shown.filter((i) => this.pictures.level[i] <= level && this.names.level[i] > level && this.nameOf(i));
        yield* extend(this.names, level, candidates, new NameRoom(this, unit));
        this.named = level;
      } else {
        yield true;
      }
    }
  }
}

/** Shows those candidates from this level on for which there is room beside the others; returns those left over. */
function* extend({ level: levels, shown }, level, candidates, room) {
  let steps = 0;
  for (const i of shown) {
    room.take(i);
    if ((steps += 1) % PAUSE === 0) yield false;
  }
  const left = [];
  for (const i of candidates) {
    if (room.isFree(i)) {
      room.take(i);
      shown.push(i);
      levels[i] = level;
    } else {
      left.push(i);
    }
    if ((steps += 1) % PAUSE === 0) yield false;
  }
  return left;
}

/** Places sorted into square cells: only those in neighbouring cells can be within `size` of each other. */
class Cells {
  constructor(size) {
    this.size = size;
    this.cells = new Map();
  }

  key(column, row) {
    return column * 67108859 + row;
  }

  add(x, y, item) {
    const key = this.key(Math.floor(x / this.size), Math.floor(y / this.size));
    const cell = this.cells.get(key);
    if (cell) cell.push(item);
    else this.cells.set(key, [item]);
  }

  some(x, y, test) {
    const column = Math.floor(x / this.size);
    const row = Math.floor(y / this.size);
    for (let c = column - 1; c <= column + 1; c += 1) {
      for (let r = row - 1; r <= row + 1; r += 1) {
        if (this.cells.get(this.key(c, r))?.some(test)) return true;
      }
    }
    return false;
  }
}

class PictureRoom {
  /** For pictures of this side that stand amid at least `least` others, by `crowd`. */
  constructor(map, side, crowd, least) {
    Object.assign(this, { map, crowd, least });
    this.half = side / 2;
    this.gap = GAP * side;
    this.cells = new Cells(side + this.gap);
  }

  take(i) {
    this.cells.add(this.map.x[i], this.map.y[i], i);
  }

  isFree(i) {
    if (this.crowd[i] < this.least) return false;
    const { x, y } = this.map;
    const [width, height] = this.map.shape(i);
    return !this.cells.some(x[i], y[i], (other) => {
      const [otherWidth, otherHeight] = this.map.shape(other);
      return (
        Math.abs(x[i] - x[other]) < this.half * (width + otherWidth) + this.gap &&
        Math.abs(y[i] - y[other]) < this.half * (height + otherHeight) + this.gap
      );
    });
  }
}

class NameRoom {
  constructor(layout, unit) {
    this.layout = layout;
    this.unit = unit;
    this.cells = new Cells(Math.max(...layout.widths, NAME_HEIGHT) / unit);
    this.same = new Map(); // where each name stands already
  }

  place(i) {
    const { map } = this.layout;
    return {
      x: map.x[i],
      y: map.y[i] - (map.shape(i)[1] * this.layout.sideAt(this.unit)) / 2 / this.unit,
      width: this.layout.widths[this.layout.column[i]],
    };
  }

  take(i) {
    const place = this.place(i);
    this.cells.add(place.x, place.y, place);
    const number = this.layout.column[i];
    if (!this.same.has(number)) this.same.set(number, new Cells(this.layout.apart / this.unit));
    this.same.get(number).add(place.x, place.y, place);
  }

  isFree(i) {
    const { x, y, width } = this.place(i);
    const far = this.layout.apart / this.unit;
    const isNamed = this.same.get(this.layout.column[i])?.some(x, y, (other) => Math.hypot(x - other.x, y - other.y) < far);
    return !isNamed && !this.cells.some(x, y, (other) => {
      const beside = Math.abs(x - other.x) * this.unit >= (width + other.width) / 2;
      return !beside && Math.abs(y - other.y) * this.unit < NAME_HEIGHT;
    });
  }
}

/** How many images of its own label lie around each image, near ones counting more. */
function crowds({ x, y, label, count, box }) {
  const across = Math.min(Math.max(Math.sqrt(count) / 4, 8), 64); // cells
  const size = Math.max(box.right - box.left, box.top - box.bottom, 1e-9) / across;
  const columns = Math.ceil(across) + 3;
  const cellOf = (i) => (Math.floor((y[i] - box.bottom) / size) + 1) * columns + Math.floor((x[i] - box.left) / size) + 1;
  const counts = new Map(); // of each label in each cell
  const key = (cell, number) => cell * 65536 + number;
  for (let i = 0; i < count; i += 1) {
    const own = key(cellOf(i), label[i]);
    counts.set(own, (counts.get(own) ?? 0) + 1);
  }
  const around = new Map(); // the same, with the cells beside it
  for (const own of counts.keys()) {
    let sum = 0;
    for (const dy of [-1, 0, 1]) {
      for (const dx of [-1, 0, 1]) sum += (counts.get(own + (dy * columns + dx) * 65536) ?? 0) / (1 + Math.abs(dx) + Math.abs(dy));
    }
    around.set(own, sum);
  }
  return Float32Array.from({ length: count }, (_, i) => around.get(key(cellOf(i), label[i])));
}
