// What the reader can do: the controls, the keys, the exports; and how it all starts.

function toggleMarks(kind) {
  state.marks[kind] = !state.marks[kind];
  byId(`mark-${kind}`).setAttribute("aria-pressed", String(state.marks[kind]));
  if (state.open !== null) showCase(state.open);
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    say("Link copied.");
  } catch {
    say(`The link to this case: ${location.href}`);
  }
}

/** Hand the chosen cases over as a file. */
function save(name, type, text) {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const exportRows = () => state.selected.map((item) => exportRow(item, choice(), state.study));

// ---- controls ------------------------------------------------------------------------------------------------------

const option = (value, label = value) => element("option", { value }, label);

function fillControls(study) {
  byId("model-a").append(...study.models.map((name) => option(name)));
  byId("model-b").append(...study.models.map((name) => option(name)));
  byId("model-b").value = study.models.at(-1);
  byId("judge").append(...study.judges.map(({ name }) => option(name)));
  for (const id of ["judge", "outcome"]) byId(id).closest("label").hidden = study.judges.length === 0;
  const scarce = { gain: 1, loss: 1, tie: 1, disagreement: 2 };
  for (const entry of [...byId("order").options]) {
    if (study.judges.length < (scarce[entry.value] ?? 0)) entry.remove();
  }
  byId("order").value = study.judges.length > 0 ? "gain" : "row";
}

/** The filter by outcome speaks of the chosen models by name. */
function nameOutcomes() {
  for (const entry of byId("outcome").options) if (entry.value) entry.textContent = WORDING[entry.value](choice());
}

/** Another pair or judge: the list changes, and an open case is shown anew under its new address. */
function changeChoice() {
  refreshList();
  if (state.open === null) return;
  history.replaceState(null, "", fragmentOf(state.open));
  showCase(state.open);
}

function listen() {
  for (const id of ["model-a", "model-b", "judge"]) byId(id).addEventListener("change", changeChoice);
  for (const id of ["subset", "outcome", "order"]) byId(id)?.addEventListener("change", refreshList);
  byId("search").addEventListener("input", refreshList);
  byId("more").addEventListener("click", showMore);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("copy").addEventListener("click", copyLink);
  byId("close").addEventListener("click", close);
  for (const kind of ["differences", "repetition"]) byId(`mark-${kind}`).addEventListener("click", () => toggleMarks(kind));
  byId("export-jsonl").addEventListener("click", () => save("cases.jsonl", "application/jsonl", toJsonl(exportRows())));
  byId("export-csv").addEventListener("click", () => save("cases.csv", "text/csv", toCsv(exportRows())));
  byId("keys").addEventListener("click", () => byId("help").showModal());
  byId("shortcuts").checked = recall("preflab-shortcuts") !== "off";
  byId("shortcuts").addEventListener("change", ({ target }) => remember("preflab-shortcuts", target.checked ? "on" : "off"));
  const watcher = new IntersectionObserver((seen) => seen.some((entry) => entry.isIntersecting) && showMore(), { root: byId("list-frame") });
  watcher.observe(byId("more"));
  addEventListener("hashchange", showAddress);
  addEventListener("keydown", onKey);
}

// ---- keys ----------------------------------------------------------------------------------------------------------

/** Close the open case and go back to its place in the list. */
function close() {
  const link = state.open && linkOf(state.open);
  location.hash = "#cases";
  showCase(null);
  (link ?? byId("search")).focus();
}

function search() {
  byId("cases").scrollIntoView({ block: "start" });
  byId("search").focus();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowRight: () => step(1),
  ArrowLeft: () => step(-1),
  "/": search,
  d: () => toggleMarks("differences"),
  r: () => toggleMarks("repetition"),
  "?": () => byId("help").showModal(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || byId("help").open) return;
  const { target, key } = event;
  if (key === "Escape") {
    if (target === byId("search") && target.value) {
      target.value = "";
      refreshList();
    } else if (state.open !== null) close();
    return;
  }
  const arrows = byId("list").contains(target) ? { ArrowDown: KEYS.j, ArrowUp: KEYS.k } : {};
  const action = arrows[key] ?? own(KEYS, key);
  const typing = target.closest?.("input, select, textarea") && target.type !== "checkbox";
  if (action === undefined || typing || (!byId("shortcuts").checked && !arrows[key])) return;
  event.preventDefault();
  action();
}

// ---- start ---------------------------------------------------------------------------------------------------------

async function start() {
  try {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack them");
    state.study = await unpack(byId("case-data").textContent);
  } catch (error) {
    byId("loading").textContent = `The cases cannot be shown: ${error.message}. Everything above stands on its own.`;
    return;
  }
  state.study.cases.forEach((item, position) => {
    item.position = position;
  });
  fillControls(state.study);
  listen();
  byId("loading").hidden = true;
  byId("browser").hidden = false;
  refreshList();
  showAddress();
}

// The first screen is painted before the cases are unpacked.
requestAnimationFrame(() => setTimeout(start));
