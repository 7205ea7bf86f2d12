// Lines over the last minutes, as SVG. Its text is HTML around it, so that it does not stretch.

import { el, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 150;

/**
 * A chart of `names`, over `spanMs`. `format` makes text of a value, and `ceiling` is the least top of its axis.
 * `update(points)` draws points {at, values}, oldest first; a null value is a gap at the line's beginning.
 */
export function chart({ title, names, spanMs, format, ceiling }) {
  const top = el("small");
  const legend = el("span", { class: "legend" }, ...names.map((name, index) => el("span", { class: `line-${index}` }, name)));
  const lines = names.map((_, index) => svg("polyline", { class: `line-${index}` }));
  const grid = [0, 0.5, 1].map((share) => {
    const y = 1 + share * (HEIGHT - 2);
    return svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y });
  });
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, ...grid, ...lines);
  const minutes = `${spanMs / 60000} min ago`;
  const axis = el("div", { class: "axis" }, el("small", {}, minutes), el("small", {}, "now"));
  const element = el("figure", {}, el("figcaption", {}, title, legend), top, picture, axis);

  function update(points) {
    const highest = Math.max(ceiling, ...points.flatMap(({ values }) => values.map((value) => value ?? 0)));
    const now = points.at(-1)?.at ?? 0;
    lines.forEach((line, index) => {
      const known = points.filter(({ values }) => values[index] !== null);
      line.setAttribute("points", known.map(({ at, values }) => place(at - now, values[index] / highest)).join(" "));
    });
    top.textContent = format(highest);
    const latest = points.at(-1)?.values ?? [];
    picture.setAttribute("aria-label", `${title}: ${names.map((name, i) => `${name} ${format(latest[i] ?? 0)}`).join(", ")} now`);
  }

  function place(age, share) {
    return `${(WIDTH * (1 + age / spanMs)).toFixed(1)},${(HEIGHT - 1 - share * (HEIGHT - 2)).toFixed(1)}`;
  }

  update([]);
  return { element, update };
}
