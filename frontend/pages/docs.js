// The API's description: every route of /openapi.json, with its fields, answers and a curl line.

import { request } from "./api.js";
import { button, el } from "./dom.js";
import { copy, toCurl } from "./exports.js";
import { failureNotice } from "./failures.js";
import { inline } from "./markdown.js";

const $ = (id) => document.getElementById(id);

async function load() {
  try {
    const description = await (await request("openapi.json")).json();
    const routes = Object.entries(description.paths).flatMap(([path, operations]) =>
      Object.entries(operations).map(([method, operation]) => operationView(path, method, operation, description)),
    );
    $("notice").replaceChildren();
    $("operations").replaceChildren(...routes);
    document.getElementById(decodeURIComponent(location.hash.slice(1)))?.setAttribute("open", "");
  } catch (error) {
    $("notice").replaceChildren(failureNotice(error, load));
  }
}

function operationView(path, method, operation, description) {
  const json = operation.requestBody?.content["application/json"];
  const [summary] = (operation.description ?? operation.summary ?? "").split("\n");
  const head = [el("span", { class: "method" }, method.toUpperCase()), el("span", { class: "path" }, path), el("small", {}, ...inline(summary))];
  return el(
    "details",
    { class: "operation", id: operation.operationId },
    el("summary", {}, ...head),
    el("div", {}, curlView(path, json), fieldsView(operation, json, description), answersView(operation.responses)),
  );
}

/** An example that runs, for routes without a path parameter. */
function curlView(path, json) {
  const line = toCurl(path.slice(1), json?.example ?? {});
  const shown = json ? line : line.split(" \\\n").filter((part) => !/ -d | 'Content-Type/.test(part)).join(" \\\n");
  return el("div", {}, el("pre", { tabindex: "0" }, el("code", {}, shown)), button("Copy", () => copy(shown)));
}

function fieldsView(operation, json, description) {
  const parameters = (operation.parameters ?? []).map((one) => [one.name, one.schema, one.description, one.required]);
  const body = json ? resolve(json.schema, description) : {};
  const fields = Object.entries(body.properties ?? {}).map(([name, schema]) => [
    name,
    schema,
    schema.description,
    body.required?.includes(name),
  ]);
  const requiredFirst = [...parameters, ...fields].sort((one, other) => Boolean(other[3]) - Boolean(one[3]));
  const rows = requiredFirst.map(([name, schema, text, isRequired]) => {
    const code = el("code", {}, name);
    const meaning = el("td", {}, ...inline(text ?? ""));
    return el("tr", {}, el("td", {}, code, isRequired ? " *" : ""), el("td", {}, typeOf(schema, description)), meaning);
  });
  return rows.length ? tableOf(["Field (* required)", "Type", "Meaning"], rows) : "";
}

function answersView(responses) {
  const rows = Object.entries(responses).map(([status, { description: text }]) => el("tr", {}, el("td", {}, status), el("td", {}, ...inline(text))));
  return tableOf(["Status", "Answer"], rows);
}

function tableOf(names, rows) {
  const head = el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)));
  return el("div", { class: "table", tabindex: "0" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
}

function resolve(schema, description) {
  return schema.$ref ? description.components.schemas[schema.$ref.split("/").at(-1)] : schema;
}

/** A schema in a few words: "integer, 0 to 20", "string or null". */
function typeOf(schema, description, depth = 0) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").at(-1);
    const fields = Object.keys(resolve(schema, description).properties ?? {});
    return depth || !fields.length ? name : `object: ${fields.join(", ")}`;
  }
  const parts = schema.anyOf ?? schema.oneOf;
  if (parts) return [...new Set(parts.map((part) => typeOf(part, description, depth + 1)))].filter((text) => text !== "null").join(" or ");
  if (schema.const !== undefined || schema.enum) return (schema.enum ?? [schema.const]).join(", ");
  if (schema.type === "array") return `list of ${schema.items ? typeOf(schema.items, description, depth + 1) : "values"}`;
  const lowest = schema.minimum ?? schema.exclusiveMinimum;
  const highest = schema.maximum ?? schema.exclusiveMaximum;
  const range = lowest === undefined || highest === undefined || highest > 1e9 ? "" : `, ${lowest} to ${highest}`;
  return `${schema.type ?? "any"}${range}`;
}

await load();
