// The camera's part of the page: its buttons, and what is shown of each frame.

import { Camera } from "./camera.js";
import { showNotice, showPause, say } from "./messages.js";
import { showTimings } from "./timings.js";

const LIST_MS = 250; // the list changes less often than the image, so that it can be read

const byId = (id) => document.getElementById(id);

export class Live {
  instances = []; // of the frame that is shown
  #camera = null;
  #shown = null; // the picture on the stage
  #listedAt = 0;
  #view;
  #panel;
  #callbacks;

  /** Callbacks: onStart(); onStop(); onPhoto(file): a picture was taken; onUnauthorized(); model(): the one to use, or null. */
  constructor(view, panel, callbacks) {
    this.#view = view;
    this.#panel = panel;
    this.#callbacks = callbacks;
    for (const id of ["camera", "start-camera"]) byId(id).addEventListener("click", () => (this.isOn ? this.stop() : void this.start()));
    byId("camera-stop").addEventListener("click", () => this.stop());
    byId("photo").addEventListener("click", () => void this.#takePhoto());
    addEventListener("pagehide", () => this.stop());
  }

  /** Whether the camera is on, or being switched on. */
  get isOn() {
    return this.#camera !== null;
  }

  /** Switch the camera on. */
  async start() {
    const camera = new Camera(byId("video"), {
      onFrame: (frame) => this.#show(frame),
      onProblem: (problem) => (problem?.passes || !problem ? showPause(problem) : showNotice(problem)),
      onEnd: (problem) => this.#fail(problem),
    });
    this.#camera = camera;
    showNotice(null);
    try {
      await camera.start(this.#callbacks.model());
    } catch (problem) {
      return this.#fail(problem);
    }
    if (this.#camera !== camera) return;
    byId("camera-controls").hidden = false;
    byId("camera").setAttribute("aria-pressed", "true");
    say("The camera is on.");
    this.#callbacks.onStart();
  }

  /** Switch the camera off. */
  stop() {
    if (!this.isOn) return;
    this.#camera.stop();
    this.#camera = null;
    byId("camera-controls").hidden = true;
    byId("camera").setAttribute("aria-pressed", "false");
    showPause(null);
    say("The camera is off.");
    if (this.#shown) this.#view.clear();
    this.#shown?.bitmap.close();
    this.#shown = null;
    this.instances = [];
    this.#callbacks.onStop();
  }

  #fail(problem) {
    this.stop();
    if (problem.code === "unauthorized") this.#callbacks.onUnauthorized();
    else showNotice(problem);
  }

  async #takePhoto() {
    const photo = await this.#camera.photo();
    this.stop();
    this.#callbacks.onPhoto(photo);
  }

  #show({ picture, answer, instances, fps, latencyMs }) {
    if (!this.isOn) return picture.bitmap.close();
    this.instances = instances;
    this.#view.show(picture, this.#panel.visible(instances), this.#panel.colourBy);
    this.#shown?.bitmap.close();
    this.#shown = picture;
    document.dispatchEvent(new CustomEvent("solo:frame", { detail: { fps, latencyMs, totalMs: answer.timings_ms.total } }));
    if (performance.now() - this.#listedAt < LIST_MS) return;
    this.#listedAt = performance.now();
    this.#panel.show(instances, true);
    showTimings(answer.timings_ms, [["", `${fps.toFixed(0)} FPS`], ["camera to screen", `${latencyMs.toFixed(0)} ms`]]);
  }
}
