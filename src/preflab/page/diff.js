// Which words two answers do not share, and which words of one answer were there before.

const LARGEST_TABLE = 4_000_000; // cells: two answers of about 2,000 words each, some tens of milliseconds
const RUN = 4; // words that come again together count as a repetition, as in the figures of the report

// As in the words that the report counts (words.py).
const HAN_AND_KANA =
  "\\u3005-\\u3007\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uff66-\\uff9f\\u{20000}-\\u{3ffff}";
const THAI = "[\\u0e40-\\u0e44]?[\\u0e01-\\u0e2f][\\u0e30-\\u0e3a\\u0e45-\\u0e4e]*";
const LAO = "[\\u0ec0-\\u0ec4]?[\\u0e81-\\u0eaf][\\u0eb0-\\u0ebd\\u0ec6-\\u0ece]*";
const KHMER = "[\\u1780-\\u17b3](?:\\u17d2[\\u1780-\\u17a2]|[\\u17b4-\\u17d1\\u17d3\\u17dd])*";
const BURMESE = "[\\u1000-\\u102a\\u103f](?:\\u1039[\\u1000-\\u1021]|[\\u102b-\\u1038\\u103a-\\u103e])*";
const STARTS = `${HAN_AND_KANA}\\u0e01-\\u0e2f\\u0e40-\\u0e44\\u0e81-\\u0eaf\\u0ec0-\\u0ec4\\u1780-\\u17b3\\u1000-\\u102a\\u103f`;
const UNITS = [`[${HAN_AND_KANA}]`, THAI, LAO, KHMER, BURMESE, `[^\\s${STARTS}]+`];
const WORD = new RegExp(`(?:${UNITS.join("|")})\\s*|\\s+|[^]`, "gu");

/** The words of a text, each with the space that follows it; scripts without spaces character by character. */
function wordsOf(text) {
  return text.match(WORD) ?? [];
}

const bare = (word) => word.trim();

/** The lengths of the longest common subsequences of all suffixes, row by row. */
function commonLengths(left, right) {
  const width = right.length + 1;
  const table = new Uint16Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const below = table[(i + 1) * width + j];
      const beside = table[i * width + j + 1];
      table[i * width + j] = left[i] === right[j] ? table[(i + 1) * width + j + 1] + 1 : Math.max(below, beside);
    }
  }
  return table;
}

/** Pairs of places where a longest common subsequence of the two lists of words runs through. */
function commonPairs(left, right) {
  const table = commonLengths(left, right);
  const width = right.length + 1;
  const pairs = [];
  let [i, j] = [0, 0];
  while (i < left.length && j < right.length) {
    if (left[i] === right[j]) pairs.push([i++, j++]);
    else if (table[(i + 1) * width + j] >= table[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return pairs;
}

/** Pairs whose neighbour is a pair too, or that stand at an end: a lone "the" in common says nothing. */
function tellingPairs(pairs, leftLength, rightLength) {
  const follows = (one, other) => one && other && other[0] - one[0] === 1 && other[1] - one[1] === 1;
  return pairs.filter(
    (pair, index) =>
      follows(pairs[index - 1], pair) ||
      follows(pair, pairs[index + 1]) ||
      (pair[0] === 0 && pair[1] === 0) ||
      (pair[0] === leftLength - 1 && pair[1] === rightLength - 1),
  );
}

/**
 * For each word of two texts whether the other text lacks it at that place.
 * @returns {?[boolean[], boolean[]]} null where the texts are too long to be compared
 */
function wordDifferences(leftWords, rightWords) {
  const [left, right] = [leftWords.map(bare), rightWords.map(bare)];
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) start += 1;
  let end = 0;
  while (end < left.length - start && end < right.length - start && left.at(-1 - end) === right.at(-1 - end)) end += 1;
  const middle = [left.slice(start, left.length - end), right.slice(start, right.length - end)];
  if ((middle[0].length + 1) * (middle[1].length + 1) > LARGEST_TABLE) return null;
  const pairs = commonPairs(...middle).map(([i, j]) => [i + start, j + start]);
  const marks = [left, right].map((words) => words.map((_, place) => place >= start && place < words.length - end));
  for (const [i, j] of tellingPairs(pairs, left.length, right.length)) {
    marks[0][i] = false;
    marks[1][j] = false;
  }
  return marks;
}

/** The share of the words of both texts that the other text has too, by the marks of `wordDifferences`. */
function sharedWords(differences) {
  const all = differences.flat();
  return all.length === 0 ? 1 : all.filter((differs) => !differs).length / all.length;
}

/** For each word whether it belongs to a run of four words that stood in the text before. */
function repeatedWords(words) {
  const plain = words.map((word) => bare(word).toLowerCase());
  const seen = new Set();
  const marks = words.map(() => false);
  for (let place = 0; place + RUN <= plain.length; place += 1) {
    const run = plain.slice(place, place + RUN).join(" ");
    if (seen.has(run)) marks.fill(true, place, place + RUN);
    seen.add(run);
  }
  return marks;
}
