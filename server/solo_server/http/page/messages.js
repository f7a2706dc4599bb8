// What the page says: the banner while it waits, notices, the card of an image that failed, the live region of screen readers.

const byId = (id) => document.getElementById(id);

/** A banner while the server is not ready or not there; null hides it. */
export function showPause(problem) {
  byId("banner").hidden = !problem;
  if (problem) {
    const { title, advice } = problem.words;
    byId("banner-text").textContent = `${problem.reason === "warming" ? "The server is starting" : title}. ${advice}`;
  }
}

/** A notice that stays until it is closed; null closes it. */
export function showNotice(problem) {
  byId("notice").hidden = !problem;
  if (problem) {
    byId("notice-title").textContent = `${problem.words.title}.`;
    byId("notice-text").textContent = problem.words.advice;
  }
}

/** The card of an image that failed; null hides it. */
export function showFailure(problem) {
  byId("failure").hidden = !problem;
  if (!problem) return;
  const { title, advice } = problem.words, { detail, requestId } = problem;
  byId("failure-title").textContent = title;
  byId("failure-advice").textContent = advice;
  byId("failure-detail").textContent = [detail && `The server says: ${detail}`, requestId && `Request ${requestId}`].filter(Boolean).join(" · ");
  byId("failure-retry").hidden = problem.isOfTheFile;
  byId("failure-retry").textContent = problem.code === "unauthorized" ? "Enter the key" : "Try again";
}

/** Says something to screen readers. */
export function say(text) {
  byId("live").textContent = text;
}
