// The images of the strip and their requests: a few at a time; what can pass is tried again.
//
//   waiting ─► running ─► done (instances)
//      ▲          ├─► failed (problem)
//      └──────────┘ busy, not ready or unreachable: after a pause

import { segment, untilReady } from "./api.js";
import { readInstances } from "./instances.js";
import { openPicture, thumbnail } from "./pictures.js";
import { Problem } from "./problems.js";

const AT_ONCE = 2;
const MAX_TRIES = 5;
const LARGE_BYTES = 20 << 20; // the server's usual limit: more may be cut off without an answer

/** One image. state: waiting, running, done or failed. sample: the path of a sample image, else "". */
export class Item {
  state = "waiting";
  thumbnail = null;
  problem = null;
  answer = null;
  instances = [];
  roundTripMs = 0;
  tries = 0;
  abort = new AbortController();

  constructor(name, file, sample = "") {
    Object.assign(this, { name, file, sample });
  }
}

export class Queue {
  items = [];
  #onChange;
  #onPause;
  #running = 0;
  #model = null;

  /** onChange(item): whenever an image's state changes. onPause(problem or null): why nothing is sent, or that it goes on. */
  constructor({ onChange, onPause }) {
    this.#onChange = onChange;
    this.#onPause = onPause;
  }

  /** Add images, and begin. */
  add(items) {
    this.items.push(...items);
    this.#fill();
  }

  /** Remove an image; its request is given up. */
  remove(item) {
    item.abort.abort();
    this.items = this.items.filter((other) => other !== item);
  }

  /** Send an image, or all that failed with a code, again. */
  retry(which) {
    for (const item of this.items) {
      if (item === which || (item.state === "failed" && item.problem.code === which)) this.#reset(item);
    }
    this.#fill();
  }

  /** Use another model from now on, for all images. */
  useModel(model) {
    this.#model = model;
    for (const item of this.items) this.#reset(item);
    this.#fill();
  }

  get model() {
    return this.#model;
  }

  #reset(item) {
    item.abort.abort();
    Object.assign(item, { state: "waiting", problem: null, answer: null, instances: [], tries: 0, abort: new AbortController() });
    this.#onChange(item);
  }

  #fill() {
    while (this.#running < AT_ONCE) {
      const item = this.items.find(({ state }) => state === "waiting");
      if (!item) return;
      this.#running++;
      void this.#process(item).finally(() => {
        this.#running--;
        this.#fill();
      });
    }
  }

  async #process(item) {
    const { signal } = item.abort;
    this.#set(item, { state: "running" });
    try {
      await this.#prepare(item);
      const answer = await this.#ask(item, signal);
      const instances = await readInstances(answer).catch((error) => {
        throw new Problem("bad_answer", { detail: error.message });
      });
      if (!item.thumbnail) throw new Problem("unreadable");
      if (!signal.aborted) this.#set(item, { state: "done", answer, instances });
    } catch (problem) {
      if (signal.aborted) return;
      if (!(problem instanceof Problem)) throw problem;
      this.#set(item, { state: "failed", problem });
    }
  }

  /** The thumbnail, and with it whether the browser can open the file. If it cannot, the server says what is wrong with it. */
  async #prepare(item) {
    if (item.thumbnail) return;
    try {
      const { bitmap } = await openPicture(item.file);
      item.thumbnail = thumbnail(bitmap);
      bitmap.close();
      this.#onChange(item);
    } catch (problem) {
      if (!(await isReadable(item.file)) || item.file.size > LARGE_BYTES) throw problem;
    }
  }

  async #ask(item, signal) {
    for (;;) {
      const start = performance.now();
      try {
        const answer = await segment(item.file, this.#model, signal);
        item.roundTripMs = performance.now() - start;
        return answer;
      } catch (problem) {
        if (!problem.passes) throw problem;
        if (!(await isReadable(item.file))) throw new Problem("unreadable");
        await this.#pause(problem, signal);
        item.tries++;
        if (item.tries >= MAX_TRIES) {
          throw problem.code === "unreachable" && item.file.size > LARGE_BYTES ? new Problem("body_too_large") : problem;
        }
      }
    }
  }

  async #pause(problem, signal) {
    if (problem.code === "overloaded") {
      await new Promise((resume) => setTimeout(resume, 1000 * problem.retryAfterS));
    } else {
      await untilReady((reason) => !signal.aborted && this.#onPause(reason));
    }
    this.#onPause(null);
    signal.throwIfAborted();
  }

  #set(item, changes) {
    Object.assign(item, changes);
    this.#onChange(item);
  }
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}
