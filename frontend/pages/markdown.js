// Markdown to elements. Only elements that are named here can come out: HTML in the text is shown as text, links lead
// to http, https and mailto, and images are links, as loading one would tell its server about the reader.
//
// Every search looks ahead a bounded number of characters, so no text takes quadratic time.

import { button, el } from "./dom.js";
import { copy } from "./exports.js";

const MAX_DEPTH = 12;
const MAX_LOOKAHEAD = 2000;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +|$)/;
const QUOTE = /^ {0,3}> ?/;
const TABLE_RULE = /^ *\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;

const sources = new WeakMap();

/** Show `text` in `container`. Blocks that did not change keep their elements: a stream redraws its last block only. */
export function render(container, text) {
  const found = blocks(text.split("\n"));
  found.forEach((block, index) => {
    const source = `${block.kind}\n${block.lines.join("\n")}`;
    const old = container.children[index];
    if (old && sources.get(old) === source) return;
    const element = toElement(block, 0);
    sources.set(element, source);
    if (old) old.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > found.length) container.lastElementChild.remove();
}

function blocks(lines) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const kind = kindOf(lines, at);
    const end = ENDS[kind](lines, at);
    found.push({ kind, lines: lines.slice(at, end) });
    at = end;
  }
  return found;
}

function kindOf(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return "code";
  if (HEADING.test(line)) return "heading";
  if (RULE.test(line)) return "rule";
  if (QUOTE.test(line)) return "quote";
  if (ITEM.test(line)) return "list";
  if (line.includes("|") && lines[at + 1]?.includes("-") && TABLE_RULE.test(lines[at + 1].slice(0, 1000))) return "table";
  return "paragraph";
}

/** For each kind of block the line behind it. */
const ENDS = {
  heading: (lines, at) => at + 1,
  rule: (lines, at) => at + 1,
  quote: (lines, at) => until(lines, at, (line) => !QUOTE.test(line)),
  table: (lines, at) => until(lines, at, (line) => !line.includes("|")),
  paragraph: (lines, at) => until(lines, at, (line, index) => !line.trim() || kindOf(lines, index) !== "paragraph"),
  code(lines, at) {
    const fence = FENCE.exec(lines[at])[1];
    const closing = until(lines, at, (line) => line.trim().startsWith(fence) && !line.trim().replaceAll(fence[0], ""));
    return Math.min(closing + 1, lines.length); // a stream may not have come to its closing fence
  },
  list(lines, at) {
    return until(lines, at, (line, index) => {
      if (line.trim() || index + 1 === lines.length) return Boolean(line.trim()) && !belongs(lines, index);
      return !ITEM.test(lines[index + 1]) && !/^ {2,}\S/.test(lines[index + 1]);
    });
  },
};

function until(lines, at, ends) {
  let end = at + 1;
  while (end < lines.length && !ends(lines[end], end)) end += 1;
  return end;
}

function belongs(lines, index) {
  return ITEM.test(lines[index]) || /^ {2,}/.test(lines[index]) || Boolean(lines[index - 1].trim() && kindOf(lines, index) === "paragraph");
}

function toElement({ kind, lines }, depth) {
  if (depth > MAX_DEPTH) return el("p", {}, lines.join("\n"));
  return ELEMENTS[kind](lines, depth);
}

const nested = (lines, depth) => blocks(lines).map((block) => toElement(block, depth + 1));

const ELEMENTS = {
  heading([line]) {
    const [, marks, text] = HEADING.exec(line);
    // The page has its own h1 and h2.
    return el(`h${Math.min(marks.length + 2, 6)}`, {}, ...inline(text.replace(/[ \t]#+[ \t]*$/, "")));
  },
  rule: () => el("hr"),
  quote: (lines, depth) => el("blockquote", {}, ...nested(lines.map((line) => line.replace(QUOTE, "")), depth)),
  paragraph: (lines) => el("p", {}, ...inline(lines.join("\n"))),
  code(lines) {
    const [, fence, language] = FENCE.exec(lines[0]);
    const last = lines.at(-1).trim();
    const isClosed = lines.length > 1 && last.startsWith(fence) && !last.replaceAll(fence[0], "");
    const text = lines.slice(1, isClosed ? -1 : undefined).join("\n");
    const head = el("div", { class: "code-head" }, el("span", {}, language || "text"), button("Copy", () => copy(text)));
    return el("div", { class: "code-block" }, head, el("pre", { tabindex: "0" }, el("code", {}, text)));
  },
  table([head, , ...rows]) {
    const cells = (name, row) => el("tr", {}, ...split(row).map((cell) => el(name, {}, ...inline(cell))));
    const table = el("table", {}, el("thead", {}, cells("th", head)), el("tbody", {}, ...rows.map((row) => cells("td", row))));
    return el("div", { class: "table", tabindex: "0" }, table);
  },
  list(lines, depth) {
    const first = ITEM.exec(lines[0])[2];
    const isOrdered = /\d/.test(first);
    const indent = ITEM.exec(lines[0])[1].length;
    const items = [];
    for (const line of lines) {
      const marker = ITEM.exec(line);
      if (marker && marker[1].length < indent + 2) items.push([line.slice(marker[0].length)]);
      else items.at(-1).push(line.replace(/^ {2,4}/, ""));
    }
    const elements = items.map((item) => el("li", {}, ...unwrapped(nested(item, depth))));
    return el(isOrdered ? "ol" : "ul", { start: isOrdered ? Number.parseInt(first, 10) : null }, ...elements);
  },
};

/** An item of one paragraph is its text. */
function unwrapped(elements) {
  return elements[0]?.tagName === "P" ? [...elements[0].childNodes, ...elements.slice(1)] : elements;
}

function split(row) {
  return row.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

const SPECIAL = /\\[!-/:-@[-`{-~]|`+|\*\*|__|~~|\*|_|!?\[|https?:\/\/|\n/g;
const LINK = /\[([^[\]]{0,500})\]\(\s{0,9}((?:[^\s()<>]|\([^\s()<>]{0,500}\)){1,2000})(?:\s{1,9}"[^"]{0,500}")?\s{0,9}\)/y;
const URL_TEXT = /https?:\/\/[^\s<>"'`|]{1,2000}/y;
const MARKS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const WORD = /[\p{L}\p{N}_]/u;

/** The nodes of a text within a block. */
export function inline(text, depth = 0) {
  if (depth > MAX_DEPTH) return [text];
  const nodes = [];
  const special = new RegExp(SPECIAL);
  let plainFrom = 0;
  for (let found = special.exec(text); found; found = special.exec(text)) {
    const at = found.index;
    const span = spanAt(text, at, found[0], depth);
    if (!span) continue;
    if (at > plainFrom) nodes.push(text.slice(plainFrom, at));
    nodes.push(span.node);
    plainFrom = special.lastIndex = span.end;
  }
  if (plainFrom < text.length) nodes.push(text.slice(plainFrom));
  return nodes;
}

/** The span that begins at `at` with `mark`, as {node, end}; null if the mark is only text. */
function spanAt(text, at, mark, depth) {
  if (mark === "\n") return { node: el("br"), end: at + 1 };
  if (mark[0] === "\\") return { node: mark[1], end: at + 2 };
  if (mark[0] === "`") return codeSpan(text, at, mark);
  if (mark.endsWith("[")) return linkSpan(text, at, mark, depth);
  if (mark.endsWith("//")) return urlSpan(text, at);
  return markedSpan(text, at, mark, depth);
}

function codeSpan(text, at, mark) {
  const begin = at + mark.length;
  const ahead = text.slice(begin, begin + MAX_LOOKAHEAD);
  const closing = ahead.split(/(?<!`)(`+)(?!`)/); // text, backticks, text, ...
  let length = 0;
  for (let index = 1; index < closing.length; index += 2) {
    length += closing[index - 1].length;
    if (closing[index] === mark) {
      return { node: el("code", {}, ahead.slice(0, length).replace(/^ (.*) $/s, "$1")), end: begin + length + mark.length };
    }
    length += closing[index].length;
  }
  return null;
}

function linkSpan(text, at, mark, depth) {
  LINK.lastIndex = at + mark.length - 1;
  const found = LINK.exec(text);
  if (!found) return null;
  const [, label, url] = found;
  if (!isSafe(url)) return null;
  const shown = mark === "![" ? [`Image: ${label || url}`] : inline(label, depth + 1);
  return { node: link(url, shown), end: LINK.lastIndex };
}

function urlSpan(text, at) {
  URL_TEXT.lastIndex = at;
  const url = URL_TEXT.exec(text)?.[0].replace(/[.,;:!?)\]*_~]{1,20}$/, "");
  return url && isSafe(url) ? { node: link(url, [url]), end: at + url.length } : null;
}

function markedSpan(text, at, mark, depth) {
  const begin = at + mark.length;
  const isWord = (index) => WORD.test(text[index] ?? "");
  if (!/\S/.test(text[begin] ?? "") || (mark[0] === "_" && isWord(at - 1))) return null;
  const near = text.slice(0, begin + MAX_LOOKAHEAD);
  for (let end = near.indexOf(mark, begin + 1); end !== -1; end = near.indexOf(mark, end + mark.length)) {
    const isInLongerMark = mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark);
    const isClosing = /\S/.test(text[end - 1]) && !(mark[0] === "_" && isWord(end + mark.length));
    if (isClosing && !isInLongerMark) {
      return { node: el(MARKS[mark], {}, ...inline(text.slice(begin, end), depth + 1)), end: end + mark.length };
    }
  }
  return null;
}

function isSafe(url) {
  return /^(?:https?:\/\/|mailto:)/i.test(url) && URL.canParse(url);
}

function link(url, children) {
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}
