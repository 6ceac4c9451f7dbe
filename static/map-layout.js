// Decides from which zoom level on each image is shown as a picture, and with the name of its label: as soon as there is
// room, starting where images are dense. Each level zooms by the square root of two. Pictures that are shown stay while
// zooming in, and panning changes nothing. Pictures grow more slowly than the distances between them, so they never touch.

import { NONE, shuffled } from "./map-data.js";

const SMALLEST = [40, 56]; // px, the longer side of a picture with the whole map in view: on a phone, in a large window
const LARGEST = 110;
const NEAREST = 220;
const COVERED = 0.4; // share of the view covered by pictures, if there are few
const GROWTH = 0.3; // size of a picture grows with this power of the zoom
const GAP = 0.22; // between pictures, as a share of their side
const LONELY = 8000; // in a map of this many images, one that stands alone is shown only after zooming in
const NAME_HEIGHT = 24; // px, including the space around it
const LETTERS = 22; // longest name
const SAME = [140, 340]; // px between two places with the same name, on a phone and in a large window
const PAUSE = 128; // images between two checks of the time
const NEVER = 32767;

const levelOf = (scale) => Math.floor(2 * Math.log2(scale));

export class Layout {
  /** `widthOf(name)` returns the width of a name in px. */
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
    this.level = levelOf(this.whole) - 3; // pictures are placed up to here; starts low, because a smaller window needs lower levels
    this.first = this.level;
  }

  /** Sets the name of each image to `names[column[i]]`. */
  nameBy({ column, names }) {
    this.column = column;
    this.texts = names.map((name) => (name.length > LETTERS ? `${name.slice(0, LETTERS - 1)}…` : name));
    this.widths = this.texts.map(this.widthOf);
    this.names = { level: new Int16Array(this.map.count).fill(NEVER), shown: [] };
    this.named = this.first;
    this.task = this.work();
  }

  /** Returns the longer side of a picture in px. */
  sideAt(scale) {
    return Math.min(this.side * (scale / this.whole) ** GROWTH, NEAREST);
  }

  nameOf(i) {
    return this.texts[this.column?.[i] ?? NONE] ?? "";
  }

  /** Returns what is in view: {pictures, names, side}. Works for about `budget` ms; `behind` if more is to be done. */
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

  /** Places pictures and names level by level, in small steps; yields true when the wanted level is done. */
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

/** Shows, from this level on, the candidates for which there is room; returns the others. */
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

/** Places in square cells of `size`: only those in neighbouring cells can be within `size` of each other. */
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
  /** For pictures with this side, whose density in `crowd` is at least `least`. */
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
    this.same = new Map(); // places of each name
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

/** Returns, for each image, the density of images with the same label around it; near ones count more. */
function crowds({ x, y, label, count, box }) {
  const across = Math.min(Math.max(Math.sqrt(count) / 4, 8), 64); // cells
  const size = Math.max(box.right - box.left, box.top - box.bottom, 1e-9) / across;
  const columns = Math.ceil(across) + 3;
  const cellOf = (i) => (Math.floor((y[i] - box.bottom) / size) + 1) * columns + Math.floor((x[i] - box.left) / size) + 1;
  const counts = new Map(); // images of each label in each cell
  const key = (cell, number) => cell * 65536 + number;
  for (let i = 0; i < count; i += 1) {
    const own = key(cellOf(i), label[i]);
    counts.set(own, (counts.get(own) ?? 0) + 1);
  }
  const around = new Map(); // the same, including the neighbouring cells
  for (const own of counts.keys()) {
    let sum = 0;
    for (const dy of [-1, 0, 1]) {
      for (const dx of [-1, 0, 1]) sum += (counts.get(own + (dy * columns + dx) * 65536) ?? 0) / (1 + Math.abs(dx) + Math.abs(dy));
    }
    around.set(own, sum);
  }
  return Float32Array.from({ length: count }, (_, i) => around.get(key(cellOf(i), label[i])));
}
