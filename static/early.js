// Before anything is shown: the size of pictures that was chosen before.
try {
  const row = Number(localStorage.getItem("row"));
  if (row) document.documentElement.style.setProperty("--row", `${row}px`);
} catch {
  // storage is refused
}
