// The page: images in, instances out, and everything that can be done with them.
//
//   inputs ─► Queue ─► answer ─► Panel (slider, filter, list) ─► View (canvas)
//   camera ─► Stream ─┘                └─► exports, snippets, cut-out

import { models, untilReady } from "./api.js";
import { listenToCutOut, showCutOut } from "./cut_out_card.js";
import { cocoResults, copyText, drawnPng, polygonsFile, save, stem } from "./exports.js";
import { listenForImages } from "./inputs.js";
import { askForKey } from "./key_dialog.js";
import { Live } from "./live.js";
import { say, showFailure, showNotice, showPause } from "./messages.js";
import { Panel } from "./panel.js";
import { openPicture } from "./pictures.js";
import { Item, Queue } from "./queue.js";
import { Problem } from "./problems.js";
import { asCurl, asPython } from "./snippets.js";
import { showStrip } from "./strip.js";
import { hideTimings, showTimings } from "./timings.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);

let current = null; // the item on the stage
let picture = null; // its picture
let isolated = null; // the instance that is shown alone

const panel = new Panel({ onFilter: filter, onHighlight: (instance) => view.highlight(instance), onIsolate: isolate });
const view = new View(byId("stage"), {
  onHover: (instance) => {
    view.highlight(instance);
    panel.highlight(instance);
  },
  onPick: (instance) => isolate(instance),
});
const queue = new Queue({ onChange: showItem, onPause: showPause });
const live = new Live(view, panel, {
  onStart: showLive,
  onStop: () => choose(current),
  onPhoto: (photo) => addImages([new Item(`photo-${queue.items.length + 1}.jpg`, photo)]),
  onUnauthorized: () => askForKey(afterKey),
  model: () => queue.model,
});

listenForImages({ onImages: addImages, onProblem: () => showNotice(new Problem("unreachable")) });
listenToCutOut({ onClose: () => isolate(null), onCopied: () => say("The cut-out is on the clipboard.") });
byId("notice-close").addEventListener("click", () => showNotice(null));
byId("failure-retry").addEventListener("click", () => (current.problem?.code === "unauthorized" ? askForKey(afterKey) : queue.retry(current)));
byId("export").addEventListener("click", ({ target }) => target.dataset.export && void exportAs(target));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && isolated && !byId("key-dialog").open) isolate(null);
});
void findModels();

/** The models of the server, once it is ready. */
async function findModels() {
  await untilReady(showPause);
  showPause(null);
  try {
    const { default: defaultName, models: listed } = await models();
    showModels(defaultName, listed.filter(({ state }) => state === "ready"));
  } catch (problem) {
    if (problem.code === "unauthorized") askForKey(afterKey);
    else if (problem.passes) setTimeout(findModels, 1000);
    else showNotice(problem);
  }
}

function showModels(defaultName, ready) {
  const chosen = ready.findLast(({ name }) => name === defaultName) ?? ready[0];
  byId("model-choice").hidden = ready.length < 2;
  byId("model-name").textContent = ready.length === 1 ? ready[0].name : "";
  byId("model").replaceChildren(...ready.map((model) => {
    const isAlone = ready.filter(({ name }) => name === model.name).length === 1;
    return new Option(isAlone ? model.name : `${model.name} (${model.version})`, "", model === chosen, model === chosen);
  }));
  const isDefault = (model) => model === chosen && model?.name === defaultName;
  byId("model").onchange = ({ target }) => {
    const model = ready[target.selectedIndex];
    live.stop();
    queue.useModel(isDefault(model) ? null : model);
  };
  if (chosen && !isDefault(chosen)) queue.useModel(chosen);
}

function afterKey() {
  queue.retry("unauthorized");
  void findModels();
}

function addImages(items) {
  live.stop();
  queue.add(items);
  choose(items[0]);
}

/** Puts an item on the stage; null: none. */
async function choose(item) {
  if (live.isOn && item) live.stop();
  current = item;
  isolated = null;
  byId("start").hidden = item !== null;
  byId("work").hidden = item === null;
  byId("add").hidden = byId("camera").hidden = item === null;
  if (!item) return;
  showItem(item);
  const opened = await openPicture(item.file).catch(() => null);
  if (current !== item || live.isOn) return opened?.bitmap.close();
  picture?.bitmap.close();
  picture = opened;
  if (!picture) return view.clear();
  showInstances(item);
}

/** An item has changed: show its state in the strip and, where it is on the stage, there. */
function showItem(item) {
  strip();
  if (item.state === "failed" && item.problem.code === "unauthorized") askForKey(afterKey);
  if (item !== current || live.isOn) return;
  byId("busy").hidden = !["waiting", "running"].includes(item.state);
  showFailure(item.state === "failed" ? item.problem : null);
  panel.show(item.instances, item.state === "done");
  for (const button of byId("export").querySelectorAll("button")) button.disabled = item.state !== "done";
  if (item.answer) showTimings(item.answer.timings_ms, [["round trip", `${item.roundTripMs.toFixed(0)} ms`]]);
  else hideTimings();
  if (item.state === "done") say(panel.inWords(item.name));
  if (picture) showInstances(item);
}

/** Draws the stage for the item that it shows. */
function showInstances(item) {
  const { width, height } = item.answer?.image ?? picture;
  isolate(null);
  view.show({ bitmap: picture.bitmap, width, height }, panel.visible(item.instances), panel.colourBy);
}

function strip() {
  showStrip(byId("strip"), queue.items, live.isOn ? null : current, {
    countOf: (item) => panel.visible(item.instances).length,
    onChoose: choose,
    onRemove: remove,
  });
}

function remove(item) {
  const place = queue.items.indexOf(item);
  queue.remove(item);
  if (item === current) void choose(queue.items[Math.min(place, queue.items.length - 1)] ?? null);
  else strip();
}

function showLive() {
  isolate(null);
  view.clear();
  picture?.bitmap.close();
  picture = null;
  byId("start").hidden = true;
  byId("work").hidden = byId("camera").hidden = byId("add").hidden = false;
  byId("busy").hidden = true;
  showFailure(null);
  for (const button of byId("export").querySelectorAll("button")) button.disabled = true;
  strip();
}

function filter() {
  const instances = live.isOn ? live.instances : (current?.instances ?? []), visible = panel.visible(instances);
  if (isolated && !visible.includes(isolated)) isolate(null);
  view.update(visible, panel.colourBy);
  strip();
  if (!live.isOn && current?.state === "done") say(panel.inWords(current.name));
}

/** Shows one instance alone, with its cut-out; null: all. */
function isolate(instance) {
  if (live.isOn && instance) return;
  if (instance === null && isolated === null) return;
  isolated = instance;
  view.isolate(instance);
  panel.isolate(instance);
  void showCutOut(current, instance);
  if (instance) say(`${instance.label} ${instance.score.toFixed(2)} alone. Its cut-out can be downloaded. Escape shows all.`);
}

async function exportAs(button) {
  const item = current, shown = panel.visible(item.instances), name = stem(item.name);
  const request = { item, model: queue.model, scoreThreshold: panel.scoreThreshold, classes: panel.shownClasses };
  const actions = {
    png: async () => save(await drawnPng(item, shown, panel.colourBy), `${name}-instances.png`),
    coco: async () => save(cocoResults(doneImages()), queue.items.length > 1 ? "coco-results.json" : `${name}-coco.json`),
    polygons: async () => save(polygonsFile(item, shown), `${name}-polygons.json`),
    curl: async () => copied(button, asCurl(request)),
    python: async () => copied(button, asPython(request)),
  };
  await actions[button.dataset.export]().catch(showNotice);
}

function doneImages() {
  return queue.items.map((item, place) => ({ item, place, instances: panel.visible(item.instances) })).filter(({ item }) => item.state === "done");
}

async function copied(button, text) {
  await copyText(text);
  const words = button.textContent;
  say("Copied.");
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = words), 1500);
}
