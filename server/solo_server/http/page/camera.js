// The webcam: frames go to the stream as fast as it takes them, and come back with their instances.
//
//   video ─► newest frame ─► JPEG ─► Stream ─► result ─► instances, shown with the frame that they belong to

import { readInstances } from "./instances.js";
import { problemOf } from "./api.js";
import { Problem } from "./problems.js";
import { Stream } from "./stream.js";

const WANTED = { width: { ideal: 960 }, height: { ideal: 540 }, facingMode: "environment" };
const QUALITY = 0.85;
const RATE_FRAMES = 20; // the frame rate is that of so many frames
const PAUSE = 0.12; // of the time between two results: a frame taken sooner would only wait for the one before it, and be older
const LONGEST_PAUSE_MS = 200;

/** A running camera. Callbacks: onFrame({picture, answer, instances, fps, latencyMs}); the picture's bitmap is the receiver's to close;
 * onProblem(problem or null): of one frame, or of a connection that is lost and comes back; onEnd(problem): it is over. */
export class Camera {
  #video;
  #callbacks;
  #media = null;
  #stream = null;
  #canvas = new OffscreenCanvas(1, 1);
  #onTheWay = new Map(); // id -> {bitmap, sentAt}
  #maxOnTheWay = 1;
  #nextId = 0;
  #lastShown = -1;
  #isGrabbing = false;
  #hasNewFrame = false; // of the camera, not sent yet
  #isStopped = false;
  #shownAt = [];
  #nextAt = 0; // when the next frame may be taken

  constructor(video, callbacks) {
    this.#video = video;
    this.#callbacks = callbacks;
  }

  /** Ask for the camera and begin. Throws a Problem where there is none. */
  async start(model) {
    this.#media = await openMedia();
    if (this.#isStopped) return this.#release();
    this.#media.getVideoTracks()[0].onended = () => this.#end(new Problem("camera_missing"));
    this.#video.srcObject = this.#media;
    await this.#video.play().catch(() => {}); // stopped meanwhile
    if (this.#isStopped) return;
    this.#stream = new Stream(model, {
      onReady: (message) => this.#begin(message),
      onFrame: (message) => void this.#receive(message),
      onPause: (problem) => this.#forget(problem),
      onEnd: (problem) => this.#end(problem),
    });
    this.#watch();
  }

  /** Switch the camera off, and close the stream. */
  stop() {
    this.#isStopped = true;
    this.#stream?.close();
    this.#dropFrames();
    this.#release();
  }

  /** The present frame as a JPEG file. */
  async photo() {
    const canvas = new OffscreenCanvas(this.#video.videoWidth, this.#video.videoHeight);
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
  }

  #begin({ in_flight: inFlight }) {
    this.#maxOnTheWay = Math.max(1, inFlight);
    this.#callbacks.onProblem(null);
  }

  /** Called for each new frame of the camera. */
  #watch() {
    if (this.#isStopped) return;
    this.#hasNewFrame = true;
    void this.#grab();
    this.#video.requestVideoFrameCallback(() => this.#watch());
  }

  /** Sends the newest frame, if there is a new one and a place for it. */
  async #grab() {
    const isFull = this.#onTheWay.size >= this.#maxOnTheWay;
    if (performance.now() < this.#nextAt) return;
    if (this.#isStopped || this.#isGrabbing || !this.#hasNewFrame || isFull || !this.#stream?.isReady || !this.#video.videoWidth) return;
    this.#isGrabbing = true;
    this.#hasNewFrame = false;
    try {
      await this.#sendFrame();
    } finally {
      this.#isGrabbing = false;
    }
    void this.#grab();
  }

  #grabSoon() {
    const rate = this.#rate(), pauseMs = rate > 0 ? Math.min(LONGEST_PAUSE_MS, (PAUSE * 1000) / rate) : 0;
    this.#nextAt = performance.now() + pauseMs;
    setTimeout(() => void this.#grab(), pauseMs + 1);
  }

  async #sendFrame() {
    const sentAt = performance.now(), id = this.#nextId++, canvas = this.#canvas;
    if (canvas.width !== this.#video.videoWidth || canvas.height !== this.#video.videoHeight) {
      canvas.width = this.#video.videoWidth;
      canvas.height = this.#video.videoHeight;
    }
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }), image = await blob.arrayBuffer();
    if (this.#isStopped || !this.#stream.isReady) return;
    this.#onTheWay.set(id, { bitmap: canvas.transferToImageBitmap(), sentAt });
    this.#stream.send(id, image);
  }

  async #receive(message) {
    const frame = this.#onTheWay.get(message.frame);
    if (!frame) return;
    this.#onTheWay.delete(message.frame);
    this.#grabSoon();
    if (message.type === "result" && message.frame > this.#lastShown) return this.#show(frame, message);
    frame.bitmap.close(); // dropped, failed, or overtaken by a newer one
    if (message.type === "error") this.#callbacks.onProblem(problemOf(message.problem));
  }

  async #show({ bitmap, sentAt }, answer) {
    this.#lastShown = answer.frame;
    const instances = await readInstances(answer), { width, height } = answer.image;
    if (this.#isStopped) return bitmap.close();
    const latencyMs = performance.now() - sentAt;
    this.#shownAt.push(performance.now());
    if (this.#shownAt.length > RATE_FRAMES) this.#shownAt.shift();
    this.#callbacks.onFrame({ picture: { bitmap, width, height, isLive: true }, answer, instances, fps: this.#rate(), latencyMs });
  }

  /** Frames a second, of those that were shown last; 0 without two. */
  #rate() {
    const [first] = this.#shownAt, last = this.#shownAt.at(-1);
    return last > first ? (1000 * (this.#shownAt.length - 1)) / (last - first) : 0;
  }

  #forget(problem) {
    this.#dropFrames();
    this.#shownAt = [];
    this.#callbacks.onProblem(problem);
  }

  #end(problem) {
    if (this.#isStopped) return;
    this.stop();
    this.#callbacks.onEnd(problem);
  }

  #dropFrames() {
    for (const { bitmap } of this.#onTheWay.values()) bitmap.close();
    this.#onTheWay.clear();
  }

  #release() {
    for (const track of this.#media?.getTracks() ?? []) track.stop();
    this.#video.srcObject = null;
  }
}

async function openMedia() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Problem("camera_insecure");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: WANTED });
  } catch (error) {
    const codes = { NotAllowedError: "camera_refused", SecurityError: "camera_refused", NotReadableError: "camera_busy", AbortError: "camera_busy" };
    throw new Problem(codes[error.name] ?? "camera_missing");
  }
}
