// Prometheus' text format, as far as /metrics uses it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** The samples of a text: each name with its samples, {labels, value}. */
export function parse(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const found = SAMPLE.exec(line);
    if (!found) continue;
    const [, name, labels = "", value] = found;
    const sample = { labels: Object.fromEntries(Array.from(labels.matchAll(LABEL), ([, key, text]) => [key, text])), value: Number(value) };
    metrics.set(name, [...(metrics.get(name) ?? []), sample]);
  }
  return metrics;
}

/** The sum of a metric's samples; null if there are none. */
export function sum(metrics, name) {
  return metrics.get(name)?.reduce((total, { value }) => total + value, 0) ?? null;
}
