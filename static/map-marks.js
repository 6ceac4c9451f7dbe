// Marks on the map: around what is meant, and the outline of a selection.

const property = (context, name) => getComputedStyle(context.canvas).getPropertyValue(name);

/** A ring around a point. */
export function drawRing(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.strokeStyle = property(context, "color");
  context.lineWidth = 2;
  context.stroke();
}

/** The corners of the viewfinder around a box. */
export function drawCorners(context, { left, top, width, height }) {
  const arm = Math.min(width, height) / 4 + 2;
  context.strokeStyle = property(context, "--accent");
  context.lineWidth = 3;
  for (const [dx, dy] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
    const x = left + width / 2 + dx * (width / 2 + 6);
    const y = top + height / 2 + dy * (height / 2 + 6);
    context.beginPath();
    context.moveTo(x - dx * arm, y);
    context.lineTo(x, y);
    context.lineTo(x, y - dy * arm);
    context.stroke();
  }
}

/** A closed dashed line, what it holds slightly tinted. */
export function drawOutline(context, path) {
  context.beginPath();
  for (const [x, y] of path) context.lineTo(x, y);
  context.closePath();
  context.strokeStyle = context.fillStyle = property(context, "color");
  context.lineWidth = 1.5;
  context.setLineDash([5, 4]);
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 0.07;
  context.fill();
  context.globalAlpha = 1;
}
