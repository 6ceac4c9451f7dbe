// Two rankings side by side: a picture that is on both sides shows where it stands on the other.

export function showTwins() {
  for (const [kind, on] of [["pointerover", true], ["focusin", true], ["pointerout", false], ["focusout", false]]) {
    document.addEventListener(kind, (event) => {
      const card = event.target.closest?.(".sides .tile.shared");
      if (card) twinOf(card)?.classList.toggle("twin", on);
    });
  }
}

function twinOf(card) {
  const place = card.querySelector(".other")?.textContent.trim();
  const other = [...document.querySelectorAll(".side")].find((side) => !side.contains(card));
  return other?.querySelectorAll(".tile")[Number(place) - 1];
}
