// WS /stream: frames in, results out. It opens again by itself when the connection is lost.

import { models, problemOf, streamAddress, untilReady } from "./api.js";
import { Problem } from "./problems.js";

const FIRST_PAUSE_MS = 500, LONGEST_PAUSE_MS = 4000;
const IDLE = "request_timeout"; // code of the end of a stream without frames
const MAX_REFUSALS = 4; // in a row, of a server that answers requests

/** One stream. Callbacks: onReady(message), onFrame(message: a result, a dropped frame or an error), onPause(problem): trying again,
 * onEnd(problem): it will not open again. */
export class Stream {
  #model;
  #callbacks;
  #socket = null;
  #isClosed = false;
  #isReady = false;
  #refusals = 0;

  constructor(model, callbacks) {
    this.#model = model;
    this.#callbacks = callbacks;
    this.#open();
  }

  /** Whether frames can be sent. */
  get isReady() {
    return this.#isReady;
  }

  /** Send a frame: an encoded image, an ArrayBuffer. id: 32 bits, returned with its result. */
  send(id, image) {
    const message = new Uint8Array(4 + image.byteLength);
    new DataView(message.buffer).setUint32(0, id);
    message.set(new Uint8Array(image), 4);
    this.#socket.send(message);
  }

  /** End the stream. */
  close() {
    this.#isClosed = true;
    this.#isReady = false;
    this.#socket?.close();
  }

  #open() {
    const { url, protocols } = streamAddress(this.#model), socket = new WebSocket(url, protocols);
    let problem = null; // the server's own, said before it closes
    this.#socket = socket;
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "end") problem = problemOf(message.problem);
      else if (this.#isClosed) return;
      else if (message.type === "ready") this.#begin(message);
      else this.#callbacks.onFrame(message);
    };
    socket.onclose = () => void this.#again(problem);
  }

  #begin(message) {
    this.#isReady = true;
    this.#refusals = 0;
    this.#callbacks.onReady(message);
  }

  async #again(problem) {
    const wasReady = this.#isReady;
    this.#isReady = false;
    if (this.#isClosed) return;
    try {
      if (problem?.code === IDLE) await untilVisible(); // no frames come while the tab is hidden
      else if (problem && !problem.passes) throw problem;
      if (this.#isClosed) return;
      this.#callbacks.onPause(problem?.passes ? problem : new Problem("unreachable"));
      if (!wasReady) await this.#findRefusal();
      await pause(Math.min(FIRST_PAUSE_MS * 2 ** this.#refusals, LONGEST_PAUSE_MS));
      await untilReady((reason) => this.#isClosed || this.#callbacks.onPause(reason));
      if (!this.#isClosed) this.#open();
    } catch (ending) {
      if (!this.#isClosed) this.#callbacks.onEnd(ending);
    }
  }

  /** A browser does not say why a WebSocket was refused; an ordinary request finds out. Throws a Problem that does not pass. */
  async #findRefusal() {
    try {
      await models();
      this.#refusals++;
    } catch (problem) {
      if (!problem.passes) throw problem;
    }
    if (this.#refusals >= MAX_REFUSALS) throw new Problem("stream_refused");
  }
}

function pause(ms) {
  return new Promise((resume) => setTimeout(resume, ms));
}

async function untilVisible() {
  while (document.hidden) await new Promise((resume) => document.addEventListener("visibilitychange", resume, { once: true }));
}
