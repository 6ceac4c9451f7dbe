// The filters: beside the results a choice applies at once; in the sheet on a phone, when its button is pressed.

import { goTo } from "./pages.js";

export function listenToFilters() {
  document.addEventListener("change", (event) => {
    const { form } = event.target;
    if (form?.matches("#sides") || (form?.closest(".filters:not(:popover-open)") && event.target.name)) {
      const { name, value } = event.target;
      goTo(form, { top: scrollY, focus: () => focusField(name, value) });
    }
  });
  document.addEventListener("input", (event) => {
    if (!event.target.matches(".filters .find")) return;
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of event.target.parentElement.querySelectorAll("li")) {
      row.hidden = !row.querySelector("input").value.toLowerCase().includes(wanted);
    }
  });
}

function focusField(name, value) {
  const fields = [...document.querySelectorAll(`main [name="${name}"]`)];
  (fields.find((field) => field.value === value) ?? fields[0])?.focus({ preventScroll: true });
}
