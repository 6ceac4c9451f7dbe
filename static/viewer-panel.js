// The details and actions of a photo: beside it or, on a phone, in a sheet below it.

const icon = (name) => `<svg class="icon" aria-hidden="true"><use href="#icon-${name}"/></svg>`;

/** Returns the panel: {element, show(slide)}. */
export function makePanel() {
  const element = document.createElement("section");
  element.className = "about-panel";
  element.setAttribute("aria-label", "About this photo");
  element.innerHTML = `
    <button type="button" class="pull" aria-expanded="false">Details</button>
    <h2 id="photo-name" aria-live="polite"></h2>
    <p class="facts"></p>
    <p class="photo-actions">
      <a class="button primary" data-do="similar" title="Find similar (f)">${icon("search")}<span>Find similar</span></a>
      <button type="button" class="button" data-do="dislike" title="Less like this (-)">${icon("minus")}<span>Less like this</span></button>
      <button type="button" class="button" data-do="like" title="More like this (+)">${icon("plus")}<span>More like this</span></button>
      <button type="button" class="button" data-do="crop" title="Search with a part of it (x)">${icon("crop")}<span>Crop</span></button>
      <a class="button" data-do="download" download title="Download (d)">${icon("download")}<span>Download</span></a>
      <button type="button" class="button" data-do="copy" data-action="copy" title="Copy the path (c)">${icon("copy")}<span>Copy path</span></button>
      <a class="button" data-do="open" target="_blank" rel="noopener" title="Open the original (o)">${icon("open")}<span>Original</span></a>
    </p>
    <dl></dl>`;
  const part = (selector) => element.querySelector(selector);
  const pull = part(".pull");
  pull.addEventListener("click", () => pull.setAttribute("aria-expanded", element.classList.toggle("is-pulled")));
  element.addEventListener("wheel", (event) => event.stopPropagation()); // scroll the panel, not zoom the photo

  const known = new Map(); // address -> details
  let latest;
  const show = async (slide) => {
    latest = slide;
    part("h2").textContent = slide.alt;
    part(".facts").textContent = slide.tile?.querySelector(".score")?.textContent ?? "";
    part("[data-do=similar]").href = slide.search;
    for (const word of ["like", "dislike"]) part(`[data-do=${word}]`).hidden = !judgeOf(slide, word);
    part("[data-do=open]").href = slide.original;
    part("[data-do=download]").href = `${slide.original}?download=1`;
    if (!known.has(slide.details)) known.set(slide.details, await fetchDetails(slide.details));
    if (latest !== slide) return;
    const details = known.get(slide.details);
    part("[data-do=copy]").dataset.copy = details?.absolute ?? details?.path;
    part("[data-do=copy]").disabled = !details;
    part("dl").replaceChildren(...(details ? factsOf(details, slide) : []));
  };
  return { element, show };
}

/** Returns the link in a photo's tile that likes or dislikes it. */
export const judgeOf = ({ tile }, word) => tile?.querySelector(`[data-judge=${word}]`);

async function fetchDetails(address) {
  try {
    const response = await fetch(address, { headers: { Accept: "application/json" } });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

function factsOf({ path, absolute, width, height, bytes, format, taken, modified, camera, labels, tags }, { tile }) {
  const pixels = width && `${width.toLocaleString()} × ${height.toLocaleString()} pixels`;
  const score = tile?.querySelector(".under[title]")?.title.split(": score ").pop(); // and the distance
  const facts = [
    ["File", (absolute ?? path).split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")])],
    ["Size", [pixels, bytes && sizeOf(bytes), format].filter(Boolean).join(", ")],
    taken ? ["Taken", dayOf(taken)] : ["File date", modified && dayOf(modified)],
    ["Camera", camera],
    [labels.length > 1 ? "Labels" : "Label", labels.map(link)],
    ["Seems to show", tags.map(link)],
    ["Score", score],
  ];
  return facts
    .filter(([, fact]) => fact?.length)
    .flatMap(([name, fact]) => {
      const [term, value] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      value.append(...[fact].flat());
      return [term, value];
    });
}

function link({ name, address }) {
  return Object.assign(document.createElement("a"), { href: address, textContent: name });
}

const dayOf = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function sizeOf(bytes) {
  const unit = bytes < 1e6 ? "kilobyte" : "megabyte";
  const size = bytes / (bytes < 1e6 ? 1e3 : 1e6);
  return size.toLocaleString(undefined, { style: "unit", unit, maximumSignificantDigits: 2 });
}
