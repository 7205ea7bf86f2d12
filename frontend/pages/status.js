// The status page: /metrics as lines, versions and limits.

import { request } from "./api.js";
import { chart } from "./chart.js";
import { el } from "./dom.js";
import { failureNotice } from "./failures.js";
import { parse, sum } from "./prometheus.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2000;
const SPAN_MS = 5 * 60 * 1000;

const whole = (value) => Math.round(value).toLocaleString("en");
const share = (value) => `${(value * 100).toFixed(0)} %`;
const duration = (seconds) => (seconds < 1 ? `${whole(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`);
const rate = (value) => `${value.toFixed(1)} tokens/s`;

const CHARTS = [
  { title: "Requests", names: ["running", "waiting"], format: whole, ceiling: 1, values: (now) => [now.running, now.waiting] },
  { title: "Answers", names: ["tokens per second"], format: rate, ceiling: 1, values: (now) => [now.answers] },
  { title: "Prompts", names: ["tokens per second"], format: rate, ceiling: 1, values: (now) => [now.prompts] },
  { title: "KV cache in use", names: ["share of blocks"], format: share, ceiling: 1, values: (now) => [now.cache] },
].map((given) => ({ ...given, points: [], ...chart({ ...given, spanMs: SPAN_MS }) }));

/** What is shown of one scrape. Rates and means are between it and the one before; null before there is one. */
function readings(metrics, before) {
  const grown = (name) => (before ? sum(metrics, name) - sum(before.metrics, name) : 0);
  const at = Date.now();
  const seconds = before ? (at - before.at) / 1000 : null;
  const perSecond = (name) => (seconds ? Math.max(0, grown(name)) / seconds : null); // a restart begins at 0 again
  const numFirst = grown("vllm:time_to_first_token_seconds_count");
  return {
    metrics,
    at,
    running: sum(metrics, "vllm:num_requests_running"),
    waiting: sum(metrics, "vllm:num_requests_waiting"),
    cache: sum(metrics, "vllm:gpu_cache_usage_perc"),
    answers: perSecond("vllm:generation_tokens_total"),
    prompts: perSecond("vllm:prompt_tokens_total"),
    firstToken: numFirst > 0 ? grown("vllm:time_to_first_token_seconds_sum") / numFirst : (before?.firstToken ?? null),
  };
}

function show(now) {
  const tiles = {
    Running: whole(now.running),
    Waiting: whole(now.waiting),
    "Tokens/s": now.answers === null ? "–" : now.answers.toFixed(1),
    "KV cache": now.cache === null ? "–" : share(now.cache),
    "First token": now.firstToken === null ? "–" : duration(now.firstToken),
    "Tokens so far": whole(sum(now.metrics, "vllm:generation_tokens_total")),
  };
  $("tiles").replaceChildren(...Object.entries(tiles).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  for (const drawn of CHARTS) {
    drawn.points = [...drawn.points.filter(({ at }) => at > now.at - SPAN_MS), { at: now.at, values: drawn.values(now) }];
    drawn.update(drawn.points);
  }
}

async function showFacts(metrics) {
  const [version, models] = await Promise.all(["version", "v1/models"].map(async (path) => (await request(path)).json()));
  const cache = metrics.get("vllm:cache_config_info")?.[0].labels;
  const { limits } = version;
  const facts = {
    Models: models.data.map(({ id }) => id).join(", "),
    Context: `${whole(limits.max_model_len)} tokens`,
    "Generations at a time": whole(limits.max_num_seqs),
    "Places in the queue": whole(limits.max_queue_length),
    "Largest body": `${whole(limits.max_body_bytes / 1024)} KiB`,
    "Longest time of an answer": `${whole(limits.request_timeout_s)} s`,
    "KV cache": cache ? `${whole(cache.num_gpu_blocks)} blocks of ${cache.block_size} tokens` : "not reported",
    "This product": version.version,
    "Triton model": version.model,
    "Serving since": new Date(models.data[0].created * 1000).toLocaleString(),
    ...Object.fromEntries(Object.entries(version.engine).map(([name, of]) => [`Engine built with ${name}`, of])),
  };
  const row = ([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value));
  $("facts").replaceChildren(...Object.entries(facts).map(row));
}

let before = null;
let timer = null;

async function poll() {
  clearTimeout(timer);
  let pause = POLL_MS;
  try {
    if (!document.hidden) {
      const metrics = parse(await (await request("metrics")).text());
      if (!$("facts").children.length) await showFacts(metrics);
      before = readings(metrics, before);
      show(before);
      $("notice").replaceChildren();
    }
  } catch (error) {
    if (!(error.status === 401 && $("notice").querySelector("form"))) $("notice").replaceChildren(failureNotice(error, poll));
    if (error.status === 401) return; // until there is a key
    pause = 1000 * (error.retryAfter ?? 5);
  }
  timer = setTimeout(poll, pause);
}

$("charts").append(...CHARTS.map(({ element }) => element));
document.addEventListener("visibilitychange", poll);
await poll();
