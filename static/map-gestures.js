// Gestures on the map: drag, pinch and wheel move the view, an outline selects, a click picks; and their keys.

const STILL = 5; // px; a longer movement is not a click
const STEP = 90; // px moved by an arrow key

export function listenForGestures(canvas, view, { moved, picked, hovered, outlined, selecting, drawing }) {
  const pointers = new Map();
  let path = null; // the outline being drawn
  let start = null;
  let far = false;

  const place = ({ clientX, clientY }) => {
    const { left, top } = canvas.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    hovered(-1, -1);
    if (pointers.size === 1) {
      start = place(event);
      far = false;
      path = selecting() || event.shiftKey ? [start] : null;
    } else {
      path = null; // two fingers pinch, whatever the first one started
      far = true;
      drawing(null);
    }
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") hovered(...now);
      return;
    }
    if (Math.hypot(now[0] - start[0], now[1] - start[1]) > STILL) far = true;
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const factor = distance(now, other) / Math.max(distance(before, other), 1);
      view.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      view.zoom(factor, (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      moved();
    } else if (path) {
      path.push(now);
      if (far) drawing(path);
    } else if (far) {
      view.pan(now[0] - before[0], now[1] - before[1]);
      moved();
    }
    pointers.set(event.pointerId, now);
  });

  const up = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (pointers.size) return;
    drawing(null);
    if (event.type === "pointercancel") path = null;
    else if (!far) picked(...place(event), event);
    else if (path && path.length > 2) outlined(path.map(([x, y]) => [view.fromX(x), view.fromY(y)]));
    path = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hovered(-1, -1); // a finger leaves after each tap
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      view.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0018)), ...place(event));
      hovered(-1, -1);
      moved();
    },
    { passive: false },
  );
}

/** Listens to keys on the whole page except in fields; in the list of selected pictures, arrows move between pictures. */
export function listenForKeys(canvas, view, { moved, picked, actions }) {
  const moves = {
    ArrowLeft: () => view.pan(STEP, 0),
    ArrowRight: () => view.pan(-STEP, 0),
    ArrowUp: () => view.pan(0, STEP),
    ArrowDown: () => view.pan(0, -STEP),
    "+": () => view.zoom(1.5),
    "=": () => view.zoom(1.5), // the same key, without Shift
    "-": () => view.zoom(1 / 1.5),
    0: () => view.fit(),
  };
  const act = (event) => {
    const { key, target } = event;
    const listed = target.closest?.("[data-part=selection]");
    if (moves[key] && !(listed && key !== "0")) {
      moves[key]();
      moved();
      if (target === document.body) canvas.focus({ preventScroll: true }); // so that Enter works, and shows its target
    } else if (key === "Enter" && target === canvas) {
      picked(view.width / 2, view.height / 2, event);
    } else {
      return key in actions && actions[key]() !== false;
    }
    return true;
  };
  // Capture the keys before the page does, because + and - zoom here.
  document.addEventListener(
    "keydown",
    (event) => {
      if (!canvas.isConnected || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.target.matches("select, textarea, input:not([type=file]), [contenteditable]")) return;
      if (document.querySelector("[popover]:popover-open, dialog[open], .pswp")) return;
      if (act(event)) event.preventDefault();
    },
    { capture: true },
  );
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
