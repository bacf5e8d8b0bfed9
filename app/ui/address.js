/** Which question does the address ask? `#search?q=copy+a+file&k=5`, so that a search can be shared. */

const LONGEST = 8000; // characters; beyond, an address is cut by what it is pasted into

/** @typedef {Record<string, string>} Values of a form, by the names of its fields */

/**
 * The address of a question, without what is at its default.
 * @param {string} panel
 * @param {Values} values
 * @param {Values} defaults
 */
export function addressOf(panel, values, defaults) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value.trim() !== (defaults[name] ?? "")) asked.set(name, value.trim());
  }
  const address = asked.size ? `#${panel}?${asked}` : `#${panel}`;
  return address.length > LONGEST ? `#${panel}` : address;
}

/**
 * The panel and the question that an address names.
 * @param {string} hash
 * @returns {{panel: string, asked: URLSearchParams}}
 */
export function readAddress(hash) {
  const [panel, ...rest] = hash.slice(1).split("?");
  return { panel, asked: new URLSearchParams(rest.join("?")) };
}

/** Show an address as the present one, so that Back returns to the one before. @param {string} address */
export function visit(address) {
  if (location.hash !== address) history.pushState(null, "", address);
}
