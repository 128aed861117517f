// What the reader has chosen, light or dark first, and how it is remembered.

/** localStorage may be forbidden (as for some local files); then a choice lasts as long as the page. */
function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch { /* not remembered */ }
}

function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function toggleTheme() {
  const root = document.documentElement;
  const dark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  root.dataset.theme = dark ? "light" : "dark";
  remember("preflab-theme", root.dataset.theme);
}

document.getElementById("theme").addEventListener("click", toggleTheme);
