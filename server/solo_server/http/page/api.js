// Requests to the server that the page came from. Addresses are relative, so that a path prefix of a proxy is kept.

import { Problem } from "./problems.js";

const KEY = "solo.api-key"; // in sessionStorage: gone when the tab is closed
const LOWEST_SCORE = 0.05; // asked for once; the slider hides what is below its own value
const READY_MS = 1000;

/** The absolute address of a path of the server. */
export function address(path) {
  return new URL(path, new URL(".", document.baseURI)).href;
}

/** The API key that was entered in this tab, or "". */
export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keep the key until the tab is closed. Throws a Problem where it cannot be a header. */
export function setApiKey(key) {
  if (!/^[\x21-\x7e]+$/.test(key)) throw new Problem("bad_key");
  sessionStorage.setItem(KEY, key);
}

/** The path that segments with a model. model: {name, version}, or null for the default. */
export function segmentPath(model) {
  return model ? `models/${encodeURIComponent(model.name)}/versions/${encodeURIComponent(model.version)}/segment` : "segment";
}

/** The answer of POST /segment for an image, a Blob. Throws a Problem; an abort of the signal throws an AbortError. */
export async function segment(image, model, signal) {
  const path = `${segmentPath(model)}?score_threshold=${LOWEST_SCORE}`;
  return answerJson(await send(path, { method: "POST", body: image, signal }));
}

/** The answer of GET /models. */
export async function models() {
  return answerJson(await send("models"));
}

/** Waits until the server takes requests. onWait(problem) is called before each pause. */
export async function untilReady(onWait) {
  for (;;) {
    try {
      await send("readyz");
      return;
    } catch (problem) {
      if (!problem.passes) return; // a proxy may hide this path: the next request tells
      onWait(problem);
      await new Promise((resume) => setTimeout(resume, READY_MS));
    }
  }
}

/** The address of WS /stream, and the subprotocols to offer. */
export function streamAddress(model) {
  const url = new URL(address("stream"));
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("score_threshold", LOWEST_SCORE);
  if (model) {
    url.searchParams.set("model", model.name);
    url.searchParams.set("version", model.version);
  }
  const key = apiKey();
  return { url: url.href, protocols: key ? ["solo.v1", `solo.key.${base64url(key)}`] : ["solo.v1"] };
}

/** A Problem from problem+json, as answers and messages of a stream have it. */
export function problemOf(json, retryAfterS = 1) {
  const { code = "http_error", detail = "", reason = "", request_id: requestId = "" } = json;
  return new Problem(code, { detail, reason, requestId, retryAfterS });
}

async function send(path, options = {}) {
  const key = apiKey(), headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(address(path), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable");
  }
  if (response.ok) return response;
  throw await problemFrom(response);
}

async function problemFrom(response) {
  const retryAfterS = Number(response.headers.get("Retry-After")) || 1;
  try {
    const json = await response.json();
    if (json.status === "not ready") return new Problem("not_ready", { reason: json.reason }); // of /readyz
    return problemOf(json, retryAfterS);
  } catch {
    if ([502, 503, 504].includes(response.status)) return new Problem("unreachable"); // of a proxy in front of the server
    return new Problem("http_error", { detail: `status ${response.status}` });
  }
}

async function answerJson(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(error instanceof SyntaxError ? "bad_answer" : "unreachable");
  }
}

function base64url(text) {
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
