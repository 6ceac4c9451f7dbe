// The viewer: PhotoSwipe over the photos of a grid, with a panel of details.

import { crop } from "./crop.js";
import { go } from "./pages.js";
import { addStyle } from "./photos.js";
import PhotoSwipe from "./vendor/photoswipe/photoswipe.esm.min.js";
import { judgeOf, makePanel } from "./viewer-panel.js";

const PREVIEW_SIDE = 2048; // px, as on the server
const NEAR_THE_END = 3; // photos before the last one, at which the grid loads more
const PANEL = 320; // px wide
const SHEET = 128; // px of the sheet that are always visible
const wide = matchMedia("(min-width: 900px) or ((min-width: 600px) and (max-height: 500px))");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const KEYS = { f: "similar", "+": "like", "=": "like", "-": "dislike", x: "crop", d: "download", c: "copy", o: "open", i: "about" };
const ABOUT =
  '<svg aria-hidden="true" class="pswp__icn" viewBox="0 0 32 32"><circle cx="16" cy="16" r="9.5"/><path d="M16 11.5h.01M16 15.5v5"/></svg>';

let viewer; // the open one

/** Opens the photo of a tile; the others of its grid can be reached from it. */
export async function open(tile) {
  await styles();
  if (viewer) return;
  const { id } = tile.dataset;
  history.pushState(history.state, "", addressOf(id));
  const grid = tile.closest(".grid");
  viewer = new Viewer(slidesOf(grid), id, { grid, isPushed: true });
}

/** Follows the address: opens or turns to the photo with an id, or closes if there is none. */
export async function follow(id) {
  if (viewer) return viewer.follow(id);
  if (!id) return;
  await styles();
  const grid = document.querySelector(`.tile[data-id="${id}"]`)?.closest(".grid");
  const slides = grid ? slidesOf(grid) : await slideAlone(id);
  if (viewer || !location.href.endsWith(`#view=${id}`) || !slides.some((slide) => slide.id === id)) return;
  viewer = new Viewer(slides, id, { grid, isPushed: false });
}

const styles = () => Promise.all([addStyle("vendor/photoswipe/photoswipe.css"), addStyle("viewer.css")]);

function addressOf(id) {
  const address = new URL(location);
  address.hash = id ? `view=${id}` : "";
  return address.hash ? address : address.pathname + address.search;
}

class Viewer {
  /** `grid` holds the photos, if they are on the page; `isPushed` if opening the photo added a step to the history. */
  constructor(slides, id, { grid, isPushed }) {
    this.grid = grid;
    this.isPushed = isPushed;
    this.panel = makePanel();
    this.pswp = new PhotoSwipe({ ...options(), dataSource: slides, index: slides.findIndex((slide) => slide.id === id) });
    this.pswp.on("uiRegister", () => this.addPanel());
    this.pswp.on("change", () => this.turned());
    this.pswp.on("keydown", ({ originalEvent: event }) => {
      const action = event.metaKey || event.ctrlKey || event.altKey ? undefined : KEYS[event.key];
      if (action) this.pswp.element.querySelector(`[data-do=${action}]:not([hidden])`)?.click();
    });
    // A photo may be loaded before or after it is put in place.
    const loaded = ({ content }) => content.element.classList.toggle("is-loaded", content.state === "loaded");
    this.pswp.on("loadComplete", loaded);
    this.pswp.on("contentAppend", loaded);
    this.pswp.on("openingAnimationEnd", () => viewer === this || this.pswp.close());
    this.pswp.on("destroy", () => this.closed());
    this.added = () => {
      this.pswp.options.dataSource = slidesOf(grid);
      this.pswp.refreshSlideContent(this.pswp.currIndex + 1);
    };
    grid?.addEventListener("grid:changed", this.added);
    this.pswp.init();
    const { element } = this.pswp;
    element.setAttribute("aria-modal", "true");
    element.setAttribute("aria-labelledby", "photo-name");
    element.addEventListener("click", (event) => this.clicked(event));
    this.setRestOfPage({ inert: true });
  }

  get slide() {
    return this.pswp.options.dataSource[this.pswp.currIndex];
  }

  addPanel() {
    this.pswp.ui.registerElement({
      name: "about",
      isButton: true,
      order: 8,
      html: ABOUT,
      title: "About this photo (i)",
      onInit: (button) => (button.dataset.do = "about"),
    });
    this.pswp.ui.registerElement({
      className: "about-photo",
      appendTo: "root",
      onInit: (element) => element.append(this.panel.element),
    });
  }

  turned() {
    const { slide, pswp, grid } = this;
    this.panel.show(slide);
    if (viewer === this) history.replaceState(history.state, "", addressOf(slide.id));
    slide.tile?.scrollIntoView({ block: "nearest" });
    const isNearTheEnd = pswp.currIndex + NEAR_THE_END >= pswp.getNumItems();
    if (isNearTheEnd) grid?.closest("section")?.querySelector("a[data-endless]")?.click();
  }

  clicked(event) {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (["similar", "like", "dislike", "crop", "about"].includes(action)) {
      event.preventDefault();
      this[action]();
    } else if (event.target.closest("a[href]:not([target], [download])")) {
      this.leave(); // to the pictures with a label
    }
  }

  similar() {
    this.visit(this.slide.search);
  }

  like(word = "like") {
    const link = judgeOf(this.slide, word);
    this.leave();
    link.click();
  }

  dislike() {
    this.like("dislike");
  }

  async crop() {
    const { preview, search } = this.slide;
    const box = await crop([preview]);
    if (!box) return;
    const address = new URL(search, location);
    address.searchParams.set("box", box);
    this.visit(address);
  }

  about() {
    this.pswp.element.classList.toggle("without-panel");
    this.pswp.updateSize(true);
  }

  /** Follows a change of the address. */
  follow(id) {
    const index = this.pswp.options.dataSource.findIndex((slide) => slide.id === id);
    if (index >= 0) return this.pswp.goTo(index);
    viewer = undefined;
    this.pswp.close();
  }

  visit(address) {
    this.leave();
    go(address);
  }

  /** Closes for another page. The address stays, so that Back returns to this photo. */
  leave() {
    viewer = undefined;
    this.pswp.destroy();
  }

  closed() {
    this.grid?.removeEventListener("grid:changed", this.added);
    this.setRestOfPage({ inert: false });
    this.slide.element?.focus({ preventScroll: true });
    if (viewer !== this) return;
    viewer = undefined;
    if (this.isPushed) history.back();
    else history.replaceState(history.state, "", addressOf());
  }

  setRestOfPage({ inert }) {
    const rest = [...document.body.children].filter((part) => part !== this.pswp.element);
    for (const part of rest) if (part.id !== "toast") part.inert = inert; // messages stay readable
  }
}

function options() {
  const motion = calm.matches ? 0 : 200; // ms
  return {
    loop: false,
    bgOpacity: 1,
    returnFocus: false,
    showHideAnimationType: motion ? "zoom" : "none",
    showAnimationDuration: motion,
    hideAnimationDuration: motion,
    zoomAnimationDuration: motion,
    // A small photo is shown in its own size, and can be enlarged.
    secondaryZoomLevel: ({ fit }) => Math.max(Math.min(1, 3 * fit), 2 * fit),
    tapAction: "toggle-controls",
    getViewportSizeFn: (_, { element }) => ({
      x: document.documentElement.clientWidth - (wide.matches && !element.classList.contains("without-panel") ? PANEL : 0),
      y: innerHeight,
    }),
    paddingFn: () => ({ top: 60, bottom: wide.matches ? 24 : SHEET, left: 0, right: 0 }),
    closeTitle: "Close (Esc)",
    zoomTitle: "Zoom (z)",
    arrowPrevTitle: "Previous photo (←)",
    arrowNextTitle: "Next photo (→)",
    errorMsg: "This photo cannot be shown. Its file may be missing or damaged.",
  };
}

function slidesOf(grid) {
  const tiles = [...grid.querySelectorAll(".tile")].filter((tile) => tile.querySelector("a.photo img"));
  return tiles.map((tile) => {
    const { id, w, h } = tile.dataset;
    const photo = tile.querySelector("a.photo");
    const { src: thumbnail, alt } = photo.querySelector("img");
    return { ...slideOf({ id, thumbnail, width: w, height: h, search: photo.href }), alt, tile, element: photo };
  });
}

/** Resolves to the slide of a photo that is not on the page, as a list; empty if the id is unknown. */
async function slideAlone(id) {
  const home = document.querySelector("a.brand").href;
  const response = await fetch(new URL(`image/${id}/details`, home));
  if (!response.ok) return [];
  const details = await response.json();
  return details.width ? [{ ...slideOf(details), alt: details.path }] : [];
}

function slideOf({ id, thumbnail, width, height, search }) {
  const original = thumbnail.replace(/\/thumbnails\/(\d+).*/, "/images/$1");
  const preview = thumbnail.replace("/thumbnails/", "/previews/");
  const details = thumbnail.replace(/\/thumbnails\/(\d+).*/, "/image/$1/details");
  const slide = { id: String(id), w: width, h: height, msrc: thumbnail, thumbCropped: true, search, original, details };
  const scale = PREVIEW_SIDE / Math.max(width, height);
  if (scale >= 1) return { ...slide, src: original, preview: original };
  // Load the original only if the screen, or the zoom, has more pixels than the preview.
  const srcset = `${preview} ${Math.round(width * scale)}w, ${original} ${width}w`;
  return { ...slide, src: preview, srcset, preview };
}
