// Image files in the browser: shown small, opened in full where pixels are cut out or saved.

import { Problem } from "./problems.js";

const SHOWN_SIDE = 2560; // pixels: a larger image is reduced once, so that drawing stays fast
const THUMBNAIL_SIDE = 160;

/** {bitmap, width, height} of an image file, rotated as its EXIF data says. The bitmap has at most SHOWN_SIDE pixels a side; close it.
 * Throws a Problem where the browser cannot open the file. */
export async function openPicture(file) {
  const full = await openFull(file), { width, height } = full;
  const bitmap = await reduced(full, SHOWN_SIDE);
  if (bitmap !== full) full.close();
  return { bitmap, width, height };
}

/** A small canvas of a bitmap. */
export function thumbnail(bitmap) {
  const scale = Math.min(1, THUMBNAIL_SIDE / Math.max(bitmap.width, bitmap.height)), canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** A canvas of all pixels of a file, or of a part [x, y, width, height] of it. Throws a Problem. */
export async function fullCanvas(file, part = null) {
  const bitmap = await openFull(file), canvas = document.createElement("canvas");
  const [x, y, width, height] = part ?? [0, 0, bitmap.width, bitmap.height];
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, -x, -y);
  bitmap.close();
  return canvas;
}

/** A canvas as a PNG file. Throws a Problem where the browser cannot make one. */
export async function toPng(canvas) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) throw new Problem("not_drawn");
  return blob;
}

async function openFull(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Problem("unreadable");
  }
}

async function reduced(bitmap, side) {
  const scale = side / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return bitmap;
  const size = { resizeWidth: Math.max(1, Math.round(bitmap.width * scale)), resizeHeight: Math.max(1, Math.round(bitmap.height * scale)) };
  return createImageBitmap(bitmap, { ...size, resizeQuality: "high" });
}
