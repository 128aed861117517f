"use strict";
// Shows what the server says comes next, and tells it what the person chose. Text of models only ever becomes text.

const element = (id) => document.getElementById(id);
const KEYS = {
  ArrowLeft: "first", 1: "first", ArrowRight: "second", 2: "second", " ": "tie", t: "tie", s: "skip",
};
const ROLES = { system: "System", user: "User", assistant: "Assistant" };

let state = null;
let busy = true; // one request at a time: a key held down, or pressed twice, judges one pair

function setText(target, text) {
  target.textContent = text.trim() ? text : "(an empty response)";
  target.classList.toggle("empty", !text.trim());
}

function duration(seconds) {
  if (seconds < 90) return "about a minute left";
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `about ${minutes} minutes left` : `about ${Math.round(minutes / 60)} hours left`;
}

function showProgress() {
  const parts = [`${state.done} done`, `${state.left} left`];
  if (state.skipped) parts.push(`${state.skipped} skipped`);
  if (state.left && !state.over && state.seconds_left !== null) parts.push(duration(state.seconds_left));
  element("progress").textContent = parts.join(" · ");
  element("bar").max = state.done + state.left;
  element("bar").value = state.done;
}

function showPair(pair) {
  const turns = pair.prompt.map(({ role, content }) => {
    const turn = document.createElement("div");
    turn.className = `turn ${role}`;
    const name = document.createElement("h2");
    name.textContent = ROLES[role];
    const text = document.createElement("div");
    text.className = "text";
    text.textContent = content;
    turn.append(name, text);
    return turn;
  });
  element("prompt").replaceChildren(...turns);
  setText(element("first"), pair.first);
  setText(element("second"), pair.second);
}

function end(text) {
  for (const id of ["prompt", "responses", "controls"]) element(id).hidden = true;
  element("end-text").textContent = text;
  element("end").hidden = false;
}

function show(next, notice = "") {
  state = next;
  showProgress();
  element("notice").textContent = notice;
  if (state.over) {
    end("Your verdicts are kept. You can close this page and go back to the terminal.");
    return;
  }
  showPair(state.pair);
  element("undo").disabled = element("finish").disabled = state.done === 0;
  window.scrollTo(0, 0);
  element("main").focus({ preventScroll: true }); // not on the button that was used: space means a tie again
}

async function send(action, body) {
  if (busy) return;
  busy = true;
  try {
    const answer = await fetch(action, body && {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const elsewhere = "Nothing was kept: this was judged in another tab. Here is what comes next.";
    if (answer.status === 200) show(await answer.json());
    else if (answer.status === 409) show(await answer.json(), elsewhere);
    else element("notice").textContent = `Nothing was kept: ${await answer.text()}`;
  } catch {
    const lost = "No answer from preflab: is it still running in the terminal? What you judged before is kept.";
    element("notice").textContent = lost;
    if (!state) element("progress").textContent = "";
  }
  busy = false;
}

const judge = (choice) => send("judge", { sample: state.pair.sample, choice });
const undo = () => state.done && send("undo", { done: state.done });

function finish() {
  const question = `Finish now? ${state.left} of ${state.done + state.left} are not judged yet.`;
  if (window.confirm(question)) send("finish", {});
}

document.addEventListener("keydown", (event) => {
  if (!state || state.over || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  const onButton = event.target instanceof HTMLButtonElement;
  if (onButton && (event.key === " " || event.key === "Enter")) return; // the button's own
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (KEYS[key]) judge(KEYS[key]);
  else if (key === "u" || key === "Backspace") undo();
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => state && judge(button.dataset.choice));
}
element("undo").addEventListener("click", () => state && undo());
element("finish").addEventListener("click", () => state && finish());

busy = false;
send("state");
