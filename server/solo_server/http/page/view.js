// The stage: the image, its instances above it and the highlighted one on top, each on a canvas of its own, so that hovering draws
// one instance only.

import { drawHighlight, drawInstances, drawIsolated, Style } from "./drawing.js";
import { instanceAt } from "./instances.js";

const MAX_ENLARGED = 3; // times: a small image is not blown up beyond this

export class View {
  #stage;
  #image;
  #masks;
  #top;
  #picture = null; // {bitmap, width, height, isLive}: width and height in image pixels; the bitmap may have fewer
  #instances = [];
  #scale = 1; // canvas pixels an image pixel
  #colourBy = "instance";
  #highlighted = null;
  #isolated = null;
  #labelPlaces = new Map(); // by instance
  #frame = 0;
  #pointer = null; // {clientX, clientY} while it is over the image
  #onHover;

  /** Shows itself in the element. onHover(instance or null), onPick(instance or null): the pointer's. */
  constructor(stage, { onHover, onPick }) {
    this.#stage = stage;
    this.#onHover = onHover;
    [this.#image, this.#masks, this.#top] = stage.querySelectorAll("canvas");
    new ResizeObserver(() => this.#later()).observe(stage);
    addEventListener("resize", () => this.#later()); // also when the browser zooms
    this.#top.addEventListener("pointermove", (event) => onHover(this.#at((this.#pointer = event))));
    this.#top.addEventListener("pointerleave", () => onHover((this.#pointer = null)));
    this.#top.addEventListener("click", (event) => onPick(this.#at(event)));
  }

  /** Shows an image with instances. The caller keeps the bitmap open while it is shown. */
  show(picture, instances, colourBy) {
    this.#picture = picture;
    this.#stage.style.setProperty("--ratio", picture.width / picture.height); // for narrow windows
    this.#take(instances, colourBy);
    this.#drawAll();
    if (this.#pointer) this.#onHover(this.#at(this.#pointer)); // the pointer rests, and what is under it is another instance
  }

  /** Shows other instances of the same image, or the same in other colours; drawn with the next frame. */
  update(instances, colourBy) {
    this.#take(instances, colourBy);
    this.#later();
  }

  /** Shows nothing. */
  clear() {
    this.#picture = null;
    this.#instances = [];
    this.#highlighted = this.#isolated = null;
    for (const canvas of [this.#image, this.#masks, this.#top]) clear(canvas);
  }

  /** Lets one instance stand out; null: none. Drawn at once. */
  highlight(instance) {
    if (instance === this.#highlighted) return;
    this.#highlighted = instance;
    this.#top.classList.toggle("on-instance", instance !== null);
    this.#drawTop();
  }

  /** Fades everything but one instance; null: nothing. */
  isolate(instance) {
    this.#isolated = instance;
    this.#drawMasks();
    this.#drawTop();
  }

  #take(instances, colourBy) {
    this.#instances = instances;
    this.#colourBy = colourBy;
    if (!instances.includes(this.#highlighted)) this.#highlighted = null;
    if (!instances.includes(this.#isolated)) this.#isolated = null;
  }

  #at(event) {
    if (!this.#picture) return null;
    const bounds = this.#top.getBoundingClientRect();
    const x = ((event.clientX - bounds.left) / bounds.width) * this.#picture.width;
    const y = ((event.clientY - bounds.top) / bounds.height) * this.#picture.height;
    return instanceAt(this.#instances, x, y);
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#drawAll();
    });
  }

  #drawAll() {
    if (!this.#picture || !this.#stage.clientWidth) return;
    this.#fit();
    this.#image.getContext("2d").drawImage(this.#picture.bitmap, 0, 0, this.#image.width, this.#image.height);
    this.#drawMasks();
    this.#drawTop();
  }

  /** Makes the canvases as large as the image fits into the stage, in device pixels. */
  #fit() {
    const { width, height } = this.#picture, { clientWidth, clientHeight } = this.#stage, ratio = devicePixelRatio;
    const scale = Math.min(clientWidth / width, clientHeight / height, MAX_ENLARGED);
    const canvasWidth = Math.max(1, Math.round(width * scale * ratio)), canvasHeight = Math.max(1, Math.round(height * scale * ratio));
    this.#scale = canvasWidth / width;
    for (const canvas of [this.#image, this.#masks, this.#top]) {
      if (canvas.width !== canvasWidth || canvas.height !== canvasHeight) {
        canvas.width = canvasWidth;
        canvas.height = canvasHeight;
        canvas.style.width = `${canvasWidth / ratio}px`;
        canvas.style.height = `${canvasHeight / ratio}px`;
      }
    }
    this.#image.getContext("2d").imageSmoothingQuality = this.#picture.isLive ? "low" : "high";
  }

  #drawMasks() {
    const context = clear(this.#masks);
    this.#labelPlaces.clear();
    if (this.#isolated) drawIsolated(context, this.#isolated, this.#style);
    else this.#labelPlaces = drawInstances(context, this.#instances, this.#style);
  }

  #drawTop() {
    const context = clear(this.#top);
    const instance = this.#highlighted;
    if (instance && instance !== this.#isolated) drawHighlight(context, instance, this.#style, this.#labelPlaces.get(instance));
  }

  get #style() {
    return new Style(this.#scale, devicePixelRatio, this.#colourBy);
  }
}

function clear(canvas) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  return context;
}
