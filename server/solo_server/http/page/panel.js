// The list of instances, the score slider, the class filter and the choice of colours.

import { colourOf } from "./palette.js";

const NAMES_READ = 10; // instances that the live region reads out

export class Panel {
  #list = document.getElementById("instances");
  #score = document.getElementById("score");
  #hiddenClasses = new Set(); // class ids
  #instances = []; // all of the image
  #visible = [];
  #current = null; // the instance that the keyboard or the pointer is on
  #isolated = null;
  #callbacks;

  /** Callbacks: onFilter(): the slider, classes or colours changed; onHighlight(instance or null); onIsolate(instance or null). */
  constructor(callbacks) {
    this.#callbacks = callbacks;
    this.#score.addEventListener("input", () => this.#filter());
    document.getElementById("class-list").addEventListener("change", ({ target }) => {
      this.#hiddenClasses[target.checked ? "delete" : "add"](Number(target.value));
      this.#filter();
    });
    document.getElementById("classes-all").addEventListener("click", () => this.#showAllClasses(true));
    document.getElementById("classes-none").addEventListener("click", () => this.#showAllClasses(false));
    document.getElementById("colours").addEventListener("change", () => this.#filter());
    this.#listenToList();
  }

  /** The lowest score that is shown. */
  get scoreThreshold() {
    return Number(this.#score.value);
  }

  /** "instance" or "class". */
  get colourBy() {
    return document.querySelector("input[name=colours]:checked").value;
  }

  /** Those of the instances that the slider and the filter let through. */
  visible(instances) {
    return instances.filter(({ score, classId }) => score >= this.scoreThreshold && !this.#hiddenClasses.has(classId));
  }

  /** The names of the classes that are shown where some are hidden, else null. */
  get shownClasses() {
    const names = new Map(this.#instances.map(({ classId, label }) => [classId, label]));
    if (![...names.keys()].some((id) => this.#hiddenClasses.has(id))) return null;
    return [...names].filter(([id]) => !this.#hiddenClasses.has(id)).map(([, name]) => name);
  }

  /** Lists the instances of an image. isDone: whether there are no more to come. */
  show(instances, isDone) {
    this.#instances = instances;
    this.#showClasses();
    this.#fill(isDone);
  }

  /** Marks the instance under the pointer. */
  highlight(instance) {
    this.#mark(instance, false);
  }

  /** Marks the instance that is shown alone. */
  isolate(instance) {
    this.#isolated = instance;
    for (const option of this.#list.children) {
      option.setAttribute("aria-selected", String(this.#instanceOf(option) === instance && instance !== null));
    }
    if (instance) this.#mark(instance, true);
  }

  /** The visible instances as a sentence for a screen reader. */
  inWords(name) {
    const count = this.#visible.length, threshold = this.scoreThreshold.toFixed(2);
    const named = this.#visible.slice(0, NAMES_READ).map(({ label, score }) => `${label} ${score.toFixed(2)}`);
    const rest = count > named.length ? `, and ${count - named.length} more` : "";
    return `${name}: ${count === 1 ? "1 instance" : `${count} instances`} with a score of at least ${threshold}${count ? ": " : ""}${named.join(", ")}${rest}.`;
  }

  #showAllClasses(areShown) {
    this.#hiddenClasses = new Set(areShown ? [] : this.#instances.map(({ classId }) => classId));
    this.#showClasses();
    this.#filter();
  }

  #filter() {
    document.getElementById("score-value").textContent = this.scoreThreshold.toFixed(2);
    this.#fill(true);
    this.#callbacks.onFilter();
  }

  #fill(isDone) {
    this.#visible = this.visible(this.#instances);
    if (!this.#visible.includes(this.#current)) this.#current = null;
    if (!this.#visible.includes(this.#isolated)) this.#isolated = null;
    this.#list.replaceChildren(...this.#visible.map((instance) => this.#option(instance)));
    this.#list.hidden = !this.#visible.length;
    const all = this.#instances.length, shown = this.#visible.length;
    document.getElementById("list-title").textContent = shown === all ? `Instances (${all})` : `Instances (${shown} of ${all})`;
    const empty = document.getElementById("list-empty");
    empty.hidden = shown > 0 || !isDone;
    empty.textContent = all ? "None with this score and class. Move the slider to the left." : "The model found nothing here.";
    this.#mark(this.#current, false);
  }

  #option(instance) {
    const option = document.createElement("li"), swatch = document.createElement("i"), label = document.createElement("span"), score = document.createElement("b");
    option.id = `instance-${instance.index}`;
    option.role = "option";
    option.setAttribute("aria-selected", String(instance === this.#isolated));
    swatch.style.background = colourOf(instance, this.colourBy);
    label.textContent = instance.label;
    score.textContent = instance.score.toFixed(2);
    option.append(swatch, label, score);
    return option;
  }

  #showClasses() {
    const counts = new Map();
    for (const { classId, label } of this.#instances) counts.set(classId, { label, count: (counts.get(classId)?.count ?? 0) + 1 });
    const chips = [...counts].sort(([, a], [, b]) => b.count - a.count).map(([id, { label, count }]) => {
      const chip = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, { type: "checkbox", value: id, checked: !this.#hiddenClasses.has(id) });
      chip.append(box, ` ${label} (${count})`);
      return chip;
    });
    document.getElementById("class-list").replaceChildren(...chips);
    const several = counts.size > 1 || [...counts.keys()].some((id) => this.#hiddenClasses.has(id));
    document.getElementById("classes").hidden = document.getElementById("colours").hidden = !several;
  }

  #listenToList() {
    const list = this.#list, instanceAt = (event) => this.#instanceOf(event.target.closest("li"));
    list.addEventListener("pointermove", (event) => this.#move(instanceAt(event), false));
    list.addEventListener("pointerleave", () => this.#move(null, false));
    list.addEventListener("click", (event) => instanceAt(event) && this.#callbacks.onIsolate(instanceAt(event)));
    list.addEventListener("focus", () => this.#current === null && list.matches(":focus-visible") && this.#move(this.#visible[0] ?? null, true));
    list.addEventListener("keydown", (event) => {
      const last = this.#visible.length - 1, place = this.#visible.indexOf(this.#current);
      const moves = { ArrowDown: place + 1, ArrowRight: place + 1, ArrowUp: Math.max(place - 1, 0), ArrowLeft: Math.max(place - 1, 0), Home: 0, End: last };
      if (event.key in moves) this.#move(this.#visible[Math.min(moves[event.key], last)] ?? null, true);
      else if ((event.key === "Enter" || event.key === " ") && this.#current) this.#callbacks.onIsolate(this.#current);
      else return;
      event.preventDefault();
    });
  }

  #move(instance, isByKey) {
    this.#mark(instance, isByKey);
    this.#callbacks.onHighlight(instance);
  }

  #mark(instance, doesScroll) {
    this.#current = instance;
    this.#list.removeAttribute("aria-activedescendant");
    for (const option of this.#list.children) {
      const isCurrent = this.#instanceOf(option) === instance && instance !== null;
      option.classList.toggle("highlighted", isCurrent);
      if (!isCurrent) continue;
      this.#list.setAttribute("aria-activedescendant", option.id);
      if (doesScroll) option.scrollIntoView({ block: "nearest" });
    }
  }

  #instanceOf(option) {
    return option ? (this.#visible.find(({ index }) => option.id === `instance-${index}`) ?? null) : null;
  }
}
