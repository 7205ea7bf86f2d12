// What leaves the page: copies, a conversation as JSON, a request as a curl line.

import { apiKey } from "./api.js";
import { el } from "./dom.js";

/** Copy text. Browsers have the clipboard over HTTPS and on localhost; elsewhere a selection is copied. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = el("textarea", { class: "visually-hidden" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Save a value as a JSON file. */
export function download(name, value) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }));
  el("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}

/** The request as a line for a POSIX shell. A key is not written out: it comes from the variable API_KEY. */
export function toCurl(path, body) {
  const parts = [`curl --no-buffer ${quote(new URL(path, document.baseURI).href)}`, "-H 'Content-Type: application/json'"];
  if (apiKey.get()) parts.push('-H "Authorization: Bearer $API_KEY"');
  parts.push(`-d ${quote(JSON.stringify(body))}`);
  return parts.join(" \\\n  ");
}

function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
