// The data of the page: unpacked once, then asked for verdicts, orders and selections. Nothing here touches the page.

/**
 * @typedef {{text: string, words: number, tokens: ?number, capped: ?boolean, scores: Object<string, number>}} Answer
 * @typedef {{outcome: string, order: ?string, preference: ?number, text: string, reason: string}} Judgement
 * @typedef {{outcome: string, points: ?number, flipped: ?boolean, judgements: Judgement[], gain: ?number}} Verdict
 * @typedef {{row: number, sample: number, subset: ?string, prompt: {role: string, content: string}[],
 *   answers: Object<string, Answer>, verdicts: Object<string, Object<string, Verdict>>}} Case
 * @typedef {{first: string, second: string, judge: string}} Choice  the two models, and who decides between them
 */

/** Unpack gzipped JSON from base64. */
async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const caseId = (item) => `${item.row}/${item.sample}`;

const own = (object, key) => (object !== undefined && Object.hasOwn(object, key) ? object[key] : undefined);

const MIRRORED = { win: "loss", loss: "win", model_first: "opponent_first", opponent_first: "model_first" };

const mirror = (word) => MIRRORED[word] ?? word;

const complement = (share) => (share === null ? null : 1 - share);

/** A verdict about the first model against the second, from one about the second against the first. */
function reversed(verdict) {
  const judgements = verdict.judgements.map((judgement) => ({
    ...judgement,
    outcome: mirror(judgement.outcome),
    order: mirror(judgement.order),
    preference: complement(judgement.preference),
  }));
  return { ...verdict, outcome: mirror(verdict.outcome), points: complement(verdict.points), judgements };
}

/** What a scorer says of the second model's answer against the first's; `gain` is the difference of the scores. */
function scorerVerdict(item, { name, rounding, size }, first, second) {
  const theirs = own(own(item.answers, first)?.scores, name);
  const ours = own(own(item.answers, second)?.scores, name);
  const sameText = own(item.answers, first)?.text === own(item.answers, second)?.text;
  if (sameText) return { outcome: "tie", points: 0.5, flipped: null, judgements: [], gain: 0 };
  if (typeof ours !== "number" || typeof theirs !== "number") return null;
  const explained = rounding * Math.max(Math.abs(ours), Math.abs(theirs), size);
  const outcome = ours - theirs > explained ? "win" : theirs - ours > explained ? "loss" : "tie";
  const points = { win: 1, tie: 0.5, loss: 0 }[outcome];
  return { outcome, points, flipped: null, judgements: [], gain: outcome === "tie" ? 0 : ours - theirs };
}

/** What the others say: they compared every model with the baseline. `gain` is how far from a tie it is. */
function comparedVerdict(item, judge, first, second, baseline) {
  const stored = own(item.verdicts, judge);
  const verdict = first === baseline ? own(stored, second) : second === baseline ? own(stored, first) : undefined;
  if (verdict === undefined) return null;
  const seen = first === baseline ? verdict : reversed(verdict);
  return { ...seen, gain: seen.points === null ? null : seen.points - 0.5 };
}

/** @returns {?Verdict} about the second model against the first; null where the judge did not compare these two */
function verdictOf(item, judge, first, second, study) {
  const kind = study.judges.find(({ name }) => name === judge);
  if (kind === undefined || first === second) return null;
  if (kind.scorer) return scorerVerdict(item, kind, first, second);
  return comparedVerdict(item, judge, first, second, study.models[0]);
}

const lengthGain = (item, { first, second }) =>
  (own(item.answers, second)?.words ?? 0) - (own(item.answers, first)?.words ?? 0);

/** How far the judges are apart: the largest difference of their points, from 0 to 1; null below two verdicts. */
function disagreement(item, { first, second }, study) {
  const points = study.judges
    .map(({ name }) => verdictOf(item, name, first, second, study)?.points)
    .filter((value) => typeof value === "number");
  return points.length < 2 ? null : Math.max(...points) - Math.min(...points);
}

const gainOf = (item, choice, study) => verdictOf(item, choice.judge, choice.first, choice.second, study)?.gain ?? null;

/** How near a verdict is to a tie: 0 for one, else negative. */
function closeness(item, choice, study) {
  const gain = gainOf(item, choice, study);
  return gain === null ? null : -Math.abs(gain);
}

const negative = (value) => (value === null ? null : -value);

/** Each order's key: cases stand by falling key, those without one last, equals in the order of the rows. */
const ORDERS = {
  row: (item) => -item.position,
  gain: gainOf,
  loss: (...asked) => negative(gainOf(...asked)),
  tie: closeness,
  longer: lengthGain,
  shorter: (...asked) => negative(lengthGain(...asked)),
  disagreement,
};

const folded = (text) => text.normalize("NFKC").toLowerCase();

/** The text of a case that a search looks at: the prompt and all responses. */
function searchable(item) {
  item.folded ??= folded(
    [...item.prompt.map(({ content }) => content), ...Object.values(item.answers).map(({ text }) => text)].join("\n"),
  );
  return item.folded;
}

const outcomeOf = (item, choice, study) =>
  verdictOf(item, choice.judge, choice.first, choice.second, study)?.outcome ?? "unjudged";

/**
 * The cases that pass the filters and hold every word of the search, in the chosen order.
 * @param {{search: string, subset: string, outcome: string, order: string}} filter  "" where it is open;
 *   `subset` is a JSON value, so that a subset may have any name
 */
function selectCases(study, choice, filter) {
  const words = folded(filter.search).split(/\s+/u).filter(Boolean);
  const subset = filter.subset === "" ? undefined : JSON.parse(filter.subset);
  const key = ORDERS[filter.order];
  return study.cases
    .filter(
      (item) =>
        (subset === undefined || item.subset === subset) &&
        (filter.outcome === "" || outcomeOf(item, choice, study) === filter.outcome) &&
        words.every((word) => searchable(item).includes(word)),
    )
    .map((item) => [key(item, choice, study) ?? -Infinity, item])
    .sort(([left, one], [right, other]) => (left === right ? one.position - other.position : right - left))
    .map(([, item]) => item);
}

/** A case as one flat row of an export; what judges say is said of the second answer, b. */
function exportRow(item, { first, second }, study) {
  const row = { row: item.row, sample: item.sample, subset: item.subset, prompt: item.prompt };
  for (const [side, model] of [["a", first], ["b", second]]) {
    const answer = own(item.answers, model);
    row[`model_${side}`] = model;
    row[`response_${side}`] = answer?.text ?? null;
    row[`tokens_${side}`] = answer?.tokens ?? null;
    for (const { name } of study.judges.filter(({ scorer }) => scorer)) {
      row[`score_${side}:${name}`] = own(answer?.scores, name) ?? null;
    }
  }
  for (const { name } of study.judges) {
    const verdict = verdictOf(item, name, first, second, study);
    row[`outcome_b:${name}`] = verdict?.outcome ?? null;
    row[`points_b:${name}`] = verdict?.points ?? null;
  }
  return row;
}

const toJsonl = (rows) => rows.map((row) => `${JSON.stringify(row)}\n`).join("");

/** A field of a CSV. Text stands as it is, also where it begins with "=": a program reads back what a model wrote. */
function csvField(value) {
  if (value === null) return "";
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return /[",\r\n]/u.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function toCsv(rows) {
  const head = Object.keys(rows[0] ?? { row: null });
  return [head, ...rows.map(Object.values)].map((line) => `${line.map(csvField).join(",")}\r\n`).join("");
}
