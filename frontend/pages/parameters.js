// The sampling parameters of a conversation: a form for them, and the fields of a body that they become.

import { el } from "./dom.js";

const NUMBERS = [
  ["temperature", "Temperature", "0 to 2; 0 always takes the most likely token", "any"],
  ["top_p", "Top p", "above 0, up to 1", "any"],
  ["top_k", "Top k", "0 turns it off", "1"],
  ["max_tokens", "Max tokens", "of an answer, from 1 on", "1"],
  ["repetition_penalty", "Repetition penalty", "above 0, up to 2; 1 is none", "any"],
  ["presence_penalty", "Presence penalty", "-2 to 2", "any"],
  ["frequency_penalty", "Frequency penalty", "-2 to 2", "any"],
  ["seed", "Seed", "equal seeds give equal answers", "1"],
];

/**
 * The fields of a request body. Empty ones are left out, so the server's defaults count; what is out of range is sent,
 * and refused by the server in its own words. Throws SyntaxError if the schema is not JSON.
 */
export function toFields(parameters) {
  const fields = {};
  for (const [name] of NUMBERS) if (parameters[name]) fields[name] = Number(parameters[name]);
  const stop = (parameters.stop ?? "").split("\n").filter(Boolean);
  if (stop.length) fields.stop = stop;
  if (parameters.schema?.trim()) {
    const schema = JSON.parse(parameters.schema);
    fields.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  return fields;
}

/** What is wrong with the text of the schema box, or "". */
export function schemaProblem(text) {
  try {
    toFields({ schema: text });
    return "";
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}

/** Inputs with the values of `parameters`. `onChange` gets each new value by name. */
export function parameterInputs(parameters, onChange) {
  const changed = (event) => onChange(event.target.name, event.target.value);
  const numbers = NUMBERS.map(([name, label, hint, step]) =>
    field(label, hint, el("input", { name, type: "number", step, value: parameters[name] ?? "", oninput: changed })),
  );
  const stop = el("textarea", { name: "stop", rows: 2, oninput: changed }, parameters.stop ?? "");
  return [
    el("div", { class: "numbers" }, ...numbers),
    field("Stop strings", "one per line; an answer ends before the first of them", stop),
    schemaField(parameters, changed),
  ];
}

function schemaField(parameters, changed) {
  const problem = el("p", { id: "schema-problem", class: "problem", role: "alert" });
  const check = (text) => {
    problem.textContent = schemaProblem(text);
    input.setAttribute("aria-invalid", String(Boolean(problem.textContent)));
  };
  const input = el(
    "textarea",
    {
      name: "schema",
      rows: 6,
      spellcheck: "false",
      class: "code",
      placeholder: '{"type": "object", "properties": {"answer": {"type": "string"}}}',
      "aria-describedby": "schema-problem",
      oninput: (event) => {
        check(event.target.value);
        changed(event);
      },
    },
    parameters.schema ?? "",
  );
  check(input.value);
  return el("div", {}, field("JSON schema", "the answer fits it, and is nothing else", input), problem);
}

/** A label with a hint above its input. */
export function field(label, hint, input) {
  return el("label", { class: "field" }, el("span", {}, label), el("small", {}, hint), input);
}
