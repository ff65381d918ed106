// Elements, made without HTML text: whatever a model or a user wrote stays text.

/**
 * Return an element.
 * @param {string} tag Its name.
 * @param {Object} [properties] Attributes; a function is a listener of the event that its name states, `onclick`.
 * @param {...(Node|string|null)} children Its content; null is left out.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Return a value as text: strings as they are, all else as JSON. */
export function textOf(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
