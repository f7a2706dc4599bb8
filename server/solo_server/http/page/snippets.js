// The same request as a command for a shell, and as Python with solo_client. The API key is a variable, never the key itself.

import { address, apiKey, segmentPath } from "./api.js";

/** request: {item, model, scoreThreshold, classes (names, or null for all)}. */
export function asCurl({ item, model, scoreThreshold, classes }) {
  const url = new URL(address(segmentPath(model)));
  url.searchParams.set("score_threshold", scoreThreshold);
  for (const name of classes ?? []) url.searchParams.append("classes", name);
  const key = apiKey() ? ' -H "Authorization: Bearer $SOLO_API_KEY"' : "";
  const fetchSample = item.sample ? `curl -sS ${quoted(address(item.sample))} -o ${quoted(item.name)} && ` : "";
  return `${fetchSample}curl -sS ${quoted(url.href)}${key} --data-binary ${quoted(`@${item.name}`)}`;
}

/** As `asCurl`. It prints one line an instance. */
export function asPython({ item, model, scoreThreshold, classes }) {
  const base = address("").replace(/\/$/, ""), key = apiKey() ? ', api_key=os.environ["SOLO_API_KEY"]' : "";
  const modelArguments = model ? `, model=${literal(model.name)}, version=${literal(model.version)}` : "";
  const classArgument = classes ? `, classes=[${classes.map(literal).join(", ")}]` : "";
  const image = item.sample ? `urlopen(${literal(address(item.sample))}).read()` : literal(item.name);
  const imports = [...(key ? ["import os"] : []), ...(item.sample ? ["from urllib.request import urlopen"] : [])];
  return [
    ...(imports.length ? [...imports, ""] : []),
    "from solo_client import SoloClient  # pip install 'solo-inference[client]'",
    "",
    `with SoloClient(${literal(base)}${key}${modelArguments}) as client:`,
    `    result = client.segment(${image}, score_threshold=${scoreThreshold}${classArgument})`,
    "    for instance in result.instances:",
    "        print(instance.label, instance.score, instance.box_xywh)",
    "",
  ].join("\n");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function literal(text) {
  return JSON.stringify(text); // a JSON string is a Python string
}
