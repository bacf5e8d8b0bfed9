/** How are numbers said? */

/** @param {unknown} value @returns {value is number} */
export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Whether JavaScript holds a value as it was written: it rounds numbers beyond 2⁵³. @param {unknown} value */
export const inFull = (value) => typeof value !== "number" || Number.isSafeInteger(value) || Math.abs(value % 1) > 0;

/** @param {number | null} value @param {number} digits */
export const decimals = (value, digits) => (isNumber(value) ? value.toFixed(digits).replace("-", "−") : "n/a");

/** @param {number | null} value */
export const score = (value) => decimals(value, 3);

/** "1,024 documents". @param {number} number @param {string} noun @param {string} several */
export const count = (number, noun, several = `${noun}s`) => `${number.toLocaleString("en")} ${number === 1 ? noun : several}`;

/** @param {number} value */
export function milliseconds(value) {
  if (!isNumber(value)) return "n/a";
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/**
 * "19× faster": how the student's time relates to the teacher's.
 * @param {{student: number, teacher: number}} times
 */
export function speed({ student, teacher }) {
  if (!(student > 0 && teacher > 0)) return "n/a";
  const ratio = teacher / student;
  const factor = Math.max(ratio, 1 / ratio);
  return `${factor.toFixed(factor < 10 ? 1 : 0)}× ${ratio >= 1 ? "faster" : "slower"}`;
}

/**
 * What a rank correlation means, in words.
 * @param {number | null} value
 * @param {boolean} same whether every text has the same place in both orders: in long ones, two that are swapped leave it near 1
 */
export function agreement(value, same) {
  if (!isNumber(value)) return "too few different scores";
  if (same) return "the same";
  const steps = /** @type {const} */ ([
    [0.85, "almost the same"], [0.6, "much alike"], [0.3, "somewhat alike"],
    [-0.3, "hardly related"], [-0.85, "rather reversed"],
  ]);
  return steps.find(([least]) => value >= least)?.[1] ?? "reversed";
}

/** @param {string | null} text */
export function day(text) {
  if (text === null) return "not recorded";
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return text;
  return date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}
