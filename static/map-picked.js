// The selection as a gallery beside the map: pictures to search by, some at a time.

const AT_ONCE = 60;

export class Picked {
  constructor(panel, { address, thumbnail, ratio, colour }) {
    this.panel = panel;
    this.tell = { address, thumbnail, ratio, colour };
    this.gallery = panel.querySelector(".gallery");
    this.card = panel.querySelector("template").content.firstElementChild;
    this.more = panel.querySelector("[data-more]");
    this.more.addEventListener("click", () => this.add());
    this.images = [];
  }

  /** Shows these images under a heading; none closes the panel. */
  show(images, heading) {
    this.images = images;
    this.shown = 0;
    this.gallery.replaceChildren();
    this.panel.hidden = images.length === 0;
    this.panel.querySelector("h2").textContent = heading;
    this.panel.scrollTop = 0;
    this.add();
  }

  add() {
    const fresh = this.images.slice(this.shown, this.shown + AT_ONCE).map((i) => {
      const card = this.card.cloneNode(true);
      card.style.setProperty("--ratio", Math.min(Math.max(this.tell.ratio(i), 0.6), 2.6).toFixed(4));
      card.style.setProperty("--tint", this.tell.colour(i));
      card.querySelector("a").href = this.tell.address(i);
      card.querySelector("img").src = this.tell.thumbnail(i);
      return card;
    });
    this.gallery.append(...fresh);
    this.shown += fresh.length;
    const left = this.images.length - this.shown;
    this.more.hidden = left === 0;
    this.more.textContent = `${Math.min(left, AT_ONCE)} more`;
  }
}
