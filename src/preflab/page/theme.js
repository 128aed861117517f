// The reader's choice of light or dark, set before the page is painted. Without a choice the system decides.
(() => {
  try {
    const chosen = localStorage.getItem("preflab-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* no storage: the choice lasts as long as the page */ }
  document.documentElement.classList.add("scripted");
})();
