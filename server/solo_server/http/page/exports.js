// What can be saved and copied.

import { drawInstances, Style } from "./drawing.js";
import { fullCanvas, toPng } from "./pictures.js";
import { Problem } from "./problems.js";

const LABEL_SHARE = 600; // of the shorter side: a label of 13 px on an image of 600

/** The image in full size with its instances drawn on it, as a PNG. */
export async function drawnPng(item, instances, colourBy) {
  const canvas = await fullCanvas(item.file), unit = Math.max(0.8, Math.min(canvas.width, canvas.height) / LABEL_SHARE);
  drawInstances(canvas.getContext("2d"), instances, new Style(canvas.width / item.answer.image.width, unit, colourBy));
  return toPng(canvas);
}

/** One instance's pixels in full size, as a PNG of its box that is transparent outside of the mask. */
export async function cutOut(item, instance) {
  const canvas = await fullCanvas(item.file, instance.box), context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  instance.cut(pixels);
  context.putImageData(pixels, 0, 0);
  return toPng(canvas);
}

/** A COCO results file of images [{item, instances}]. image_id: the place in the strip, from 1; category_id: class_id + 1.
 * Without boxes: COCO's loadRes would use a box's area as the mask's. */
export function cocoResults(images) {
  return json(images.flatMap(({ item, place, instances }) => instances.map((instance) => ({
    image_id: place + 1, file_name: item.name, category_id: instance.classId + 1, category_name: instance.label,
    score: instance.score, segmentation: instance.rle,
  }))));
}

/** Polygons along pixel edges, in image pixels; holes are rings of their own. */
export function polygonsFile(item, instances) {
  return json({
    image: { name: item.name, ...item.answer.image },
    model: item.answer.model,
    instances: instances.map(({ label, classId, score, box, area, polygons }) => ({
      label, class_id: classId, score, box_xywh: box, area,
      polygons: polygons.map(({ exterior, holes }) => ({ exterior: pairs(exterior), holes: holes.map(pairs) })),
    })),
  });
}

/** Save a file under a name. */
export function save(blob, name) {
  const link = document.createElement("a"), url = URL.createObjectURL(blob);
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may not have begun to read it
}

/** Put text on the clipboard, also on pages that are not secure. Throws a Problem. */
export async function copyText(text) {
  if (navigator.clipboard) {
    const isCopied = await navigator.clipboard.writeText(text).then(() => true, () => false);
    if (isCopied) return;
  }
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (!isCopied) throw new Problem("not_copied");
}

/** Whether images can be put on the clipboard: on secure pages only. */
export const canCopyImages = Boolean(navigator.clipboard?.write && globalThis.ClipboardItem);

/** Put a PNG on the clipboard. Throws a Problem. */
export async function copyPng(blob) {
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
  } catch {
    throw new Problem("not_copied");
  }
}

/** A file's name without its suffix. */
export function stem(name) {
  return name.replace(/\.[^.]+$/, "") || name;
}

function json(content) {
  return new Blob([JSON.stringify(content)], { type: "application/json" });
}

function pairs(points) {
  return Array.from({ length: points.length / 2 }, (_, i) => [points[2 * i], points[2 * i + 1]]);
}
