// A click on a photo opens it in the viewer, which is loaded on first use. The address then ends in #view=7, so that
// Back closes the photo and a reload opens it again.

import { isPlain } from "./pages.js";

let viewer; // a promise of the module

export function viewPhotos() {
  document.addEventListener("click", (event) => {
    const photo = event.target.closest("a.photo");
    if (!isPlain(event) || !photo?.querySelector("img")) return;
    event.preventDefault();
    viewer ??= import("./viewer.js");
    viewer.then(
      ({ open }) => open(photo.closest(".tile")),
      () => location.assign(photo.href), // the browser reports a server that does not respond
    );
  });
  addEventListener("popstate", followAddress);
  document.addEventListener("page:shown", followAddress);
  followAddress();
}

async function followAddress() {
  const id = /^#view=(\d+)$/.exec(location.hash)?.[1];
  if (id) viewer ??= import("./viewer.js");
  (await viewer)?.follow(id);
}

const styles = new Map();

/** Resolves once a style sheet of this folder is in use. */
export function addStyle(name) {
  if (!styles.has(name)) {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet" });
    const loaded = new Promise((resolve) => (link.onload = link.onerror = resolve));
    link.href = new URL(name, import.meta.url);
    document.head.append(link);
    styles.set(name, loaded);
  }
  return styles.get(name);
}
