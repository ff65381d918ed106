// A form from a JSON schema: a control for each property, and the JSON object that they state.

import { element } from "./dom.js";

let numbers = 0;

/** The fault of one control. */
class Fault extends Error {}

/**
 * The controls of an object's properties.
 *
 * A property that is not required is left out where its control is empty, or has the schema's default.
 */
export class Fields {
  /**
   * @param {Object} schema The schema of the object.
   * @param {Object} root The document that references point into.
   */
  constructor(schema, root) {
    const required = new Set(schema.required ?? []);
    this.fields = Object.entries(schema.properties ?? {}).map(
      ([name, own]) => new Field(name, resolved(own, root), required.has(name), root),
    );
    this.elements = this.fields.map((field) => field.element);
  }

  /** Return the object, and mark the controls that have a fault; null where one has. */
  read() {
    const object = {};
    let isWhole = true;
    for (const field of this.fields) {
      try {
        const value = field.read();
        if (value !== undefined) object[field.name] = value;
        field.mark("");
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        field.mark(error.message);
        isWhole = false;
      }
    }
    return isWhole ? object : null;
  }

  /** Return the object without those whose controls have a fault, and mark nothing. */
  peek() {
    const object = {};
    for (const field of this.fields) {
      try {
        const value = field.read();
        if (value !== undefined) object[field.name] = value;
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
      }
    }
    return object;
  }

  /** Mark the control of a property; return false if there is none. */
  mark(name, detail) {
    const field = this.fields.find((each) => each.name === name);
    field?.mark(detail);
    return field !== undefined;
  }

  /** Move the focus to the first control with a fault. */
  focusFault() {
    this.fields.find((field) => field.control.getAttribute("aria-invalid") === "true")?.control.focus();
  }
}

class Field {
  constructor(name, schema, isRequired, root) {
    this.name = name;
    this.isRequired = isRequired;
    this.default = schema.default;
    const own = withoutNull(schema, root);
    const kind = kindOf(own, isRequired);
    const id = `field-${(numbers += 1)}`;
    this.error = element("p", { id: `${id}-error`, class: "error" });
    const notes = { id, "aria-describedby": `${id}-note ${id}-error`, "aria-required": String(isRequired) };
    ({ control: this.control, read: this.readControl } = KINDS[kind](own, notes, this));
    if (kind === "checkbox") this.control.removeAttribute("aria-required");
    const label = element("label", { for: id }, name, element("span", { class: "type" }, ` ${typeOf(own)}`));
    const note = [schema.description, own.description !== schema.description ? own.description : "", this.rule(kind)];
    this.element = element(
      "div",
      { class: kind === "checkbox" ? "field check" : "field" },
      ...(kind === "checkbox" ? [this.control, label] : [label, this.control]),
      element("p", { id: `${id}-note`, class: "note" }, note.filter(Boolean).join(" · ")),
      this.error,
      kind === "json" && Object.keys(own).length
        ? element("details", {}, element("summary", {}, `Schema of ${name}`),
            element("pre", { tabindex: "0" }, JSON.stringify(expanded(own, root), null, 2)))
        : null,
    );
  }

  rule(kind) {
    const parts = [];
    if (kind === "json") parts.push("JSON");
    if (kind === "any") parts.push("JSON; other text is sent as a string");
    if (!this.isRequired && kind !== "checkbox") {
      const isStated = this.default !== undefined && this.default !== null;
      parts.push(isStated ? `optional, by default ${JSON.stringify(this.default)}` : "optional: left out while empty");
    }
    return parts.join(" · ");
  }

  read() {
    const value = this.readControl();
    if (value === undefined && this.isRequired) throw new Fault("A value is needed.");
    if (!this.isRequired && JSON.stringify(value) === JSON.stringify(this.default)) return undefined;
    return value;
  }

  mark(detail) {
    this.error.textContent = detail;
    this.control.setAttribute("aria-invalid", String(Boolean(detail)));
  }
}

/** The controls by kind: each returns one, and a function that reads it; undefined is no value. */
const KINDS = {
  choice(own, notes, field) {
    const values = own.enum ?? [own.const];
    const control = element("select", notes);
    if (field.default == null && (values.length > 1 || !field.isRequired)) {
      control.append(element("option", { value: "" }, field.isRequired ? "(choose)" : "(left out)"));
    }
    values.forEach((value, at) => {
      control.append(element("option", { value: at, selected: value === field.default }, optionText(value)));
    });
    return { control, read: () => (control.value === "" ? undefined : values[Number(control.value)]) };
  },
  checkbox(own, notes, field) {
    const control = element("input", { ...notes, type: "checkbox", checked: field.default === true });
    return { control, read: () => control.checked };
  },
  number(own, notes, field) {
    const control = element("input", { ...notes, inputmode: own.type === "integer" ? "numeric" : "decimal",
      value: field.default, autocomplete: "off" });
    return { control, read: () => readNumber(control.value.trim(), own) };
  },
  text(own, notes, field) {
    const control = element("textarea", { ...notes, rows: "3" }, field.default ?? "");
    // An empty text is a value where the property has to be stated, or has a default that is none.
    const mayBeEmpty = field.isRequired || typeof field.default === "string";
    return { control, read: () => (control.value === "" && !mayBeEmpty ? undefined : control.value) };
  },
  json(own, notes, field) {
    const control = element("textarea", { ...notes, rows: "4", class: "code", spellcheck: "false",
      placeholder: { array: "[]", object: "{}" }[own.type] }, startOf(field));
    return { control, read: () => (control.value.trim() === "" ? undefined : readJson(control.value)) };
  },
  any(own, notes, field) {
    const { control } = KINDS.json(own, notes, field);
    const read = () => {
      try {
        return control.value.trim() === "" ? undefined : readJson(control.value);
      } catch {
        return control.value;
      }
    };
    return { control, read };
  },
};

function kindOf(own, isRequired) {
  if (own.enum || "const" in own) return "choice";
  if (own.type === "boolean") return isRequired || "default" in own ? "checkbox" : "choice";
  if (own.type === "integer" || own.type === "number") return "number";
  if (own.type === "string") return "text";
  return own.type || own.anyOf || own.oneOf || own.allOf ? "json" : "any";
}

function readNumber(text, own) {
  if (text === "") return undefined;
  const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isFinite(value)) throw new Fault("This is not a number.");
  if (own.type === "integer" && !Number.isInteger(value)) throw new Fault("This is not an integer.");
  if (Number.isInteger(value) && !Number.isSafeInteger(value) && !/[.e]/i.test(text)) {
    throw new Fault("A browser cannot send an integer of this size exactly: ask by one of the calls below.");
  }
  return value;
}

function readJson(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault(`This is not JSON: ${error.message}`);
  }
}

function startOf(field) {
  return field.default === undefined || field.default === null ? "" : JSON.stringify(field.default, null, 2);
}

function optionText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** Return a schema with its own reference followed; what stands beside the reference stays. */
function resolved(schema, root) {
  let found = schema;
  for (let depth = 0; found?.$ref && depth < 20; depth += 1) {
    const { $ref, ...beside } = found;
    const parts = $ref.replace(/^#\//, "").split("/").map((part) => part.replace(/~1/g, "/").replace(/~0/g, "~"));
    found = { ...parts.reduce((at, part) => at?.[part], root), ...beside };
  }
  return found && typeof found === "object" ? found : {};
}

/** Return a schema without its null: to leave a property out is the same. */
function withoutNull(schema, root) {
  if (Array.isArray(schema.type)) {
    const types = schema.type.filter((type) => type !== "null");
    return types.length === 1 ? { ...schema, type: types[0] } : schema;
  }
  if (schema.enum?.includes(null)) return { ...schema, enum: schema.enum.filter((value) => value !== null) };
  const choices = schema.anyOf?.filter((choice) => choice.type !== "null");
  if (choices?.length !== 1) return schema;
  const only = resolved(choices[0], root);
  const own = only.type === "boolean" ? { type: "boolean", enum: [true, false] } : only;
  return "default" in schema && schema.default !== null ? { ...own, default: schema.default } : own;
}

function typeOf(own) {
  if (own.enum || "const" in own) return "one of";
  if (own.type === "array") return own.items?.type ? `list of ${own.items.type}` : "list";
  return own.type ?? "";
}

/** Return a schema with the references within it followed, as far as they do not repeat. */
function expanded(schema, root, seen = []) {
  if (Array.isArray(schema)) return schema.map((each) => expanded(each, root, seen));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    if (seen.includes(schema.$ref)) return schema;
    return expanded(resolved(schema, root), root, [...seen, schema.$ref]);
  }
  return Object.fromEntries(Object.entries(schema).map(([name, own]) => [name, expanded(own, root, seen)]));
}
