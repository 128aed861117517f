// The case browser: controls, list and one open case. What is open stands in the page's address, and only there:
// links, keys and the back button all change the address, and `showAddress` follows it.

const CHUNK = 60; // lines of the list that are made at once
const byId = (id) => document.getElementById(id);

/** An element with attributes and children. Text only ever becomes text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Control characters as the pictures that Unicode has for them, so that they are seen and do nothing. */
const visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/gu, (c) => (c === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0))));

const state = { study: null, selected: [], shown: 0, open: null, marks: { differences: true, repetition: true } };

/** Tell the reader what has happened; screen readers say it aloud. */
const say = (message) => {
  byId("status").textContent = message;
};

const decimals = (value) => (Math.abs(value) < 0.1 && value !== 0 ? 3 : 2);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(decimals(value));
const plain = (value) => (value < 0 ? "−" : "") + Math.abs(value).toFixed(decimals(value));

/** An outcome in words, of the two models that are compared. */
const WORDING = {
  win: ({ second }) => `${second} wins`,
  loss: ({ first }) => `${first} wins`,
  tie: () => "tie",
  error: () => "error",
  unjudged: () => "not judged",
};

const choice = () => ({ first: byId("model-a").value, second: byId("model-b").value, judge: byId("judge").value });
const filter = () => ({
  search: byId("search").value,
  subset: byId("subset")?.value ?? "",
  outcome: byId("outcome").value,
  order: byId("order").value,
});

// ---- the address ---------------------------------------------------------------------------------------------------

/** The fragment of a case: "#case=12/0&a=base&b=dpo&judge=gold". */
function fragmentOf(item) {
  const { first, second, judge } = choice();
  const parts = { case: caseId(item), a: first, b: second, judge };
  return `#${Object.entries(parts).filter(([, value]) => value !== "").map(([name, value]) => `${name}=${escapePart(value)}`).join("&")}`;
}

const escapePart = (value) => encodeURIComponent(value.toWellFormed?.() ?? value).replaceAll("%2F", "/");

function setSelect(id, value) {
  const select = byId(id);
  if (value !== null && [...select.options].some((option) => option.value === value)) select.value = value;
}

/** Show what the address asks for: a case with its models and judge, or none. */
function showAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const id = asked.get("case");
  if (id === null) {
    if (location.hash === "" || location.hash === "#cases") showCase(null);
    return;
  }
  const before = JSON.stringify(choice());
  for (const [control, name] of [["model-a", "a"], ["model-b", "b"], ["judge", "judge"]]) setSelect(control, asked.get(name));
  if (JSON.stringify(choice()) !== before) refreshList();
  const item = state.study.cases.find((candidate) => caseId(candidate) === id) ?? null;
  showCase(item);
  if (item === null) say(`There is no case ${id} in this report.`);
}

const follow = (item) => location.replace(fragmentOf(item));

// ---- the list ------------------------------------------------------------------------------------------------------

function refreshList() {
  nameOutcomes();
  state.selected = selectCases(state.study, choice(), filter());
  state.shown = 0;
  byId("list").replaceChildren();
  byId("list-frame").scrollTop = 0;
  const [count, all] = [state.selected.length, state.study.cases.length];
  byId("count").textContent = count === all ? `${all} cases` : `${count} of ${all} cases`;
  byId("nothing").hidden = count > 0;
  for (const id of ["export-jsonl", "export-csv"]) byId(id).disabled = count === 0;
  showMore();
}

function showMore() {
  const next = state.selected.slice(state.shown, state.shown + CHUNK);
  byId("list").append(...next.map(listItem));
  state.shown += next.length;
  byId("more").hidden = state.shown >= state.selected.length;
  markOpen();
}

function listItem(item) {
  const chosen = choice();
  const verdict = verdictOf(item, chosen.judge, chosen.first, chosen.second, state.study);
  const outcome = verdict?.outcome ?? "unjudged";
  const scorer = state.study.judges.find(({ name }) => name === chosen.judge)?.scorer;
  const gain = scorer && verdict ? ` ${signed(verdict.gain)}` : "";
  const asked = item.prompt.findLast(({ role }) => role === "user") ?? item.prompt.at(-1);
  return element(
    "li",
    {},
    element(
      "a",
      { href: fragmentOf(item), "data-case": caseId(item) },
      element("span", { class: "asked", dir: "auto" }, visible((asked?.content ?? "").slice(0, 160)) || "(empty prompt)"),
      element("span", { class: `outcome ${outcome}` }, WORDING[outcome](chosen) + gain),
      element("span", { class: "where" }, [`case ${caseId(item)}`, item.subset].filter(Boolean).join(" · ")),
    ),
  );
}

const linkOf = (item) => [...byId("list").querySelectorAll("a")].find((link) => link.dataset.case === caseId(item));

/** Mark the open case in the list and bring it into the list's view. */
function markOpen() {
  byId("list").querySelector("[aria-current]")?.removeAttribute("aria-current");
  if (state.open === null) return;
  const link = linkOf(state.open);
  link?.setAttribute("aria-current", "true");
  const [frame, line] = [byId("list-frame"), link?.getBoundingClientRect()];
  if (line === undefined) return;
  const view = frame.getBoundingClientRect();
  if (line.top < view.top || line.bottom > view.bottom) frame.scrollTop += line.top - view.top - view.height / 3;
}

/** Open the case that stands so many lines further down (or up) than the open one, or than where the reader is. */
function step(by) {
  const inList = byId("list").contains(document.activeElement);
  const here = inList ? document.activeElement.dataset.case : null;
  const from = state.open ?? state.selected.find((item) => caseId(item) === here);
  const next = state.selected[from === undefined ? 0 : Math.max(state.selected.indexOf(from) + by, 0)];
  if (next === undefined) return;
  while (linkOf(next) === undefined) showMore();
  follow(next);
  if (inList) linkOf(next).focus();
}

// ---- one case ------------------------------------------------------------------------------------------------------

function showCase(item) {
  const detail = byId("detail");
  const changed = item !== state.open;
  state.open = item;
  byId("empty").hidden = item !== null;
  byId("case-tools").hidden = item === null;
  document.body.classList.toggle("case-open", item !== null);
  if (item === null) detail.replaceChildren();
  else detail.replaceChildren(...caseParts(item, choice()));
  markOpen();
  if (item !== null && changed) {
    say("");
    byId("case").scrollIntoView({ block: "start", behavior: "instant" });
  }
}

function caseParts(item, chosen) {
  const answers = [chosen.first, chosen.second].map((model) => own(item.answers, model));
  const words = answers.map((answer) => wordsOf(visible(answer?.text ?? "")));
  const differences = wordDifferences(...words);
  const shared = differences === null ? null : sharedWords(differences);
  const apart = shared !== null && shared < FEW;
  const heading = [`Case ${caseId(item)}`, item.subset].filter(Boolean).join(" · ");
  return [
    element("h3", { id: "case-title", tabindex: "-1" }, heading),
    element("div", { class: "prompt" }, ...item.prompt.map(turn)),
    element("div", { class: "pair" }, ...[0, 1].map((side) => answerPart(side, chosen, answers, words, apart ? null : differences))),
    apart || shared === null ? element("p", { class: "small" }, apart ? unlike(shared) : TOO_LONG) : null,
    verdictsPart(item, chosen),
  ].filter((part) => part !== null);
}

const FEW = 0.2; // of the words in common: below, almost everything would be marked, and nothing could be read
const unlike = (shared) => `${(100 * shared).toFixed(0)} % of the wording is common to both: too little to mark differences.`;
const TOO_LONG = "These answers are too long to mark their differences.";

const turn = ({ role, content }) =>
  element("div", { class: `turn ${role}` }, element("h4", {}, role), element("div", { class: "text", dir: "auto" }, visible(content)));

function answerPart(side, { first, second }, answers, words, differences) {
  const [name, answer] = [[first, second][side], answers[side]];
  const head = element("h4", {}, element("span", { class: "letter" }, "AB"[side]), " ", element("bdi", {}, name));
  if (answer === undefined) return element("section", { class: "answer" }, head, element("p", { class: "small" }, "No answer."));
  const text = element("div", { class: "text", dir: "auto" }, ...marked(words[side], differences?.[side]));
  if (answer.text === "") text.replaceChildren(element("em", { class: "small" }, "(empty response)"));
  return element("section", { class: "answer", "aria-label": `Answer ${"AB"[side]} of ${name}` }, head, text, factsPart(answer));
}

/** The words of an answer, those with the same marks together in one element. */
function marked(words, differences) {
  const repeated = repeatedWords(words);
  const classes = words.map((_, place) =>
    [
      state.marks.differences && differences?.[place] ? "only" : "",
      state.marks.repetition && repeated[place] ? "again" : "",
    ].join(" ").trim(),
  );
  const parts = [];
  for (let start = 0, end; start < words.length; start = end) {
    end = start + 1;
    while (end < words.length && classes[end] === classes[start]) end += 1;
    const text = words.slice(start, end).join("");
    parts.push(...(classes[start] ? markedPart(text, classes[start]) : [text]));
  }
  return parts;
}

/** A marked passage; the space behind it is left unmarked. */
function markedPart(text, classes) {
  const title = { only: "not in the other answer", again: "was said before" };
  const body = text.trimEnd();
  const why = classes.split(" ").map((name) => title[name]).join("; ");
  return [element("mark", { class: classes, title: why }, body), text.slice(body.length)];
}

function factsPart(answer) {
  const facts = [`${answer.words} words`];
  if (answer.tokens !== null) facts.push(`${answer.tokens} tokens`);
  facts.push(...Object.entries(answer.scores).map(([scorer, score]) => `${scorer} ${score === null ? "–" : plain(score)}`));
  const tags = answer.capped ? [element("li", { class: "warn" }, "cut at the token cap")] : [];
  return element("ul", { class: "facts" }, ...facts.map((fact) => element("li", {}, fact)), ...tags);
}

function verdictsPart(item, chosen) {
  const lines = state.study.judges.map(({ name }) => verdictLine(name, verdictOf(item, name, chosen.first, chosen.second, state.study), chosen));
  return lines.length === 0 ? null : element("section", { class: "verdicts" }, element("h4", {}, "Verdicts"), ...lines);
}

function verdictLine(judge, verdict, chosen) {
  const outcome = verdict?.outcome ?? "unjudged";
  const judgements = verdict?.judgements ?? [];
  const notes = [
    judgements.length === 0 && typeof verdict?.gain === "number" ? `difference ${signed(verdict.gain)}` : "",
    verdict?.flipped ? "the two orders contradict each other" : "",
    verdict === null ? "did not compare these two" : "",
  ].filter(Boolean);
  return element(
    "div",
    { class: "verdict" },
    element("bdi", { class: "judge" }, judge),
    element("span", { class: `outcome ${outcome}` }, WORDING[outcome](chosen)),
    element("span", { class: "small" }, notes.join(" · ")),
    ...judgements.map((judgement) => judgementPart(judgement, chosen)),
  );
}

function judgementPart({ outcome, order, preference, text, reason }, chosen) {
  const shown = { model_first: `${chosen.second} shown first`, opponent_first: `${chosen.first} shown first` };
  const share = preference === null ? null : `${(100 * preference).toFixed(0)} % for ${chosen.second}`;
  const line = [WORDING[outcome](chosen), shown[order], share, reason && `reason: ${visible(reason)}`].filter(Boolean).join(" · ");
  if (!text) return element("p", { class: "judgement small" }, line);
  return element(
    "details",
    { class: "judgement" },
    element("summary", {}, line),
    element("div", { class: "text", dir: "auto" }, visible(text)),
  );
}
