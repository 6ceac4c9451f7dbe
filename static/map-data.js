// Fetches the map: a JSON head, then columns of numbers that are used as they come.

const KINDS = { f8: Float64Array, f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
export const NONE = 0xffff; // no label, no group

/** Resolves to {count, labels, clusters, id, x, y, version, label, cluster, ratio, colour}. */
export async function fetchMap(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`The server answered with an error (${response.status}). Try again in a moment.`);
  const bytes = await response.arrayBuffer();
  const size = new DataView(bytes).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, size)));
  const map = { count: head.count, labels: head.labels, clusters: head.clusters };
  for (const [name, [kind, at, length]] of Object.entries(head.columns)) {
    map[name] = new KINDS[kind](bytes, 4 + size + at, length);
  }
  return map;
}

/** An order in which no part of the map comes first, the same each time. */
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
