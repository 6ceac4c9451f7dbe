// The panel of selected images beside the map: shows them in a grid, in batches, with actions.

import { copy } from "./copy.js";
import { append } from "./grid.js";
import { counted, say, sayError } from "./notices.js";
import { load } from "./pages.js";

const AT_ONCE = 60;
const IN_ADDRESS = 500; // ids; some programs do not accept longer addresses
const LIKED = 20; // selected images to search with
const PATHS_AT_ONCE = 10_000; // limit of the server

export class Selection {
  constructor(panel, { grid, search, paths }) {
    this.panel = panel;
    this.addresses = { grid, search, paths };
    this.list = panel.querySelector("[data-part=list]");
    this.more = panel.querySelector("[data-part=more]");
    this.ids = [];
    const actions = { more: () => this.add(), copy: () => this.copyPaths(), save: () => this.savePaths() };
    for (const [name, act] of Object.entries(actions)) {
      panel.querySelector(`[data-part=${name}]`).addEventListener("click", () => act().catch((error) => sayError(error.message)));
    }
  }

  /** Shows images under a heading; closes the panel if there are none. */
  async show(ids, heading) {
    this.ids = ids;
    this.shown = 0;
    this.panel.hidden = ids.length === 0;
    this.panel.querySelector("h2").textContent = heading;
    this.list.replaceChildren();
    this.more.hidden = true;
    const [grid, similar] = ["grid", "similar"].map((name) => this.panel.querySelector(`[data-part=${name}]`));
    grid.hidden = ids.length > IN_ADDRESS;
    grid.href = `${this.addresses.grid}?ids=${ids.slice(0, IN_ADDRESS).join(",")}`;
    const step = Math.max(1, ids.length / LIKED);
    const liked = Array.from({ length: Math.min(LIKED, ids.length) }, (_, n) => ids[Math.floor(n * step)]);
    similar.href = `${this.addresses.search}?${liked.map((id) => `like=${id}`).join("&")}`;
    if (ids.length) await this.add().catch((error) => sayError(error.message));
  }

  async add() {
    const { ids } = this;
    const next = ids.slice(this.shown, this.shown + AT_ONCE);
    const page = await load(`${this.addresses.grid}?n=${AT_ONCE}&ids=${next.join(",")}`);
    if (ids !== this.ids) return; // another selection was made meanwhile
    append(this.list, page);
    this.shown += next.length;
    const left = ids.length - this.shown;
    this.more.hidden = left === 0;
    this.more.textContent = `${Math.min(left, AT_ONCE)} more`;
  }

  /** Resolves to the paths, one per line; a path with a line break is quoted as in JSON. */
  async paths() {
    const { ids } = this;
    const lines = [];
    for (let at = 0; at < ids.length; at += PATHS_AT_ONCE) {
      const body = ids.slice(at, at + PATHS_AT_ONCE).join(",");
      const response = await fetch(this.addresses.paths, { method: "POST", body });
      if (!response.ok) throw new Error(`The server answered with an error (${response.status}). Try again in a moment.`);
      for (const path of await response.json()) lines.push(/[\r\n]/.test(path) ? JSON.stringify(path) : path);
    }
    return lines.map((line) => `${line}\n`).join("");
  }

  async copyPaths() {
    await copy((await this.paths()).trimEnd(), `Copied the paths of ${counted(this.ids.length)}`);
  }

  async savePaths() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await this.paths()], { type: "text/plain" }));
    link.download = "pictures.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say("List downloaded");
  }
}
