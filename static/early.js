// Sets the size of pictures that was chosen on an earlier visit, before anything is shown.
try {
  const row = Number(localStorage.getItem("row"));
  if (row) document.documentElement.style.setProperty("--row", `${row}px`);
} catch {
  // storage is not allowed
}
