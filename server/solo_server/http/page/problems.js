// Every failure in plain words, and what to do about it. The codes are those of solo_server/errors.py, and the page's own.

/** code -> [title, what to do]. */
export const WORDS = {
  empty_body: ["The file is empty", "It has no bytes. Choose another file, or save it again."],
  malformed_request: ["The server did not understand the request", "Reload the page. If it happens again, a proxy between you and the server may change requests."],
  invalid_tensor: ["The request does not fit the model", "Reload the page. This page does not use the protocol that this error is from."],
  unauthorized: ["This server asks for an API key", "Enter the key that you were given by whoever runs the server."],
  control_off: ["Models cannot be loaded or unloaded here", "Whoever runs the server can switch this on with SOLO_MODEL_CONTROL."],
  url_not_allowed: ["The server may not fetch this image", "Drop the image itself instead of its address."],
  url_unreachable: ["The server could not fetch this image", "Drop the image itself instead of its address."],
  not_found: ["The server does not know this address", "Reload the page. The server may be another version than the page."],
  model_not_found: ["This model is no longer served", "Choose another model, or reload the page to see what is served now."],
  method_not_allowed: ["The server does not accept this kind of request", "Reload the page. The server may be another version than the page."],
  http_error: ["The server refused the request", "Reload the page and try again."],
  not_acceptable: ["The server cannot answer in the form that was asked for", "Reload the page. The server may be another version than the page."],
  origin_refused: ["The server does not take streams from this address", "Open the page at the server's own address, or have SOLO_CORS_ORIGINS name this one."],
  upgrade_required: ["The server expects a stream here", "Reload the page. A proxy in between may not pass WebSockets on."],
  request_timeout: ["The image arrived too slowly", "Check your connection, or send a smaller image."],
  body_too_large: ["The file is too large for this server", "Save the image smaller or with stronger compression, as a JPEG for example."],
  image_too_large: ["The image has too many pixels for this server", "Scale it down and try again."],
  unsupported_media_type: ["This is not an image that the server reads", "Use JPEG, PNG, WebP, AVIF or BMP."],
  image_damaged: ["The image is damaged", "It is truncated or broken. Download or export it again."],
  invalid_query: ["The server did not accept an option", "Reload the page. The server may be another version than the page."],
  model_not_loadable: ["The model's new files cannot be loaded", "The version that was served before still is. The server's log has the reason."],
  answer_too_large: ["The answer would be too large", "Send a smaller image, or ask for fewer instances."],
  headers_too_large: ["The request's headers are too large", "Use a shorter API key, or clear the cookies of this site."],
  overloaded: ["The server is busy", "The page tries again by itself. If it stays busy, try later."],
  not_ready: ["The server is not ready", "The page goes on by itself when the server is."],
  deadline_exceeded: ["The server took too long", "Try again, or send a smaller image."],
  internal: ["The server failed on this image", "Try again. If it happens again, tell whoever runs the server the request id below."],
  unreachable: ["The server does not answer", "The page goes on by itself when the server is back. Is it running?"],
  unreadable: ["The browser cannot open this file", "It is no image, or is damaged. Use JPEG, PNG, WebP, AVIF or BMP."],
  bad_answer: ["The answer could not be read", "Reload the page. Something between you and the server may have changed it."],
  bad_key: ["This key cannot be right", "A key has only letters, digits and signs of ASCII. Copy it again, without spaces."],
  not_copied: ["The browser did not allow copying", "Select the text and copy it, or download the file instead."],
  not_drawn: ["The browser cannot make such a large image", "Try another browser, or a smaller image."],
  camera_refused: ["The camera is not allowed", "Allow it in the browser's address bar, then press Camera again."],
  camera_missing: ["No camera was found", "Connect one, then press Camera again."],
  camera_busy: ["The camera is in use", "Close the other program that uses it, then press Camera again."],
  camera_insecure: ["The browser gives the camera to secure pages only", "Open this page through https:// or at http://localhost."],
  stream_refused: ["The server does not accept the camera's stream", "Too many cameras may be connected, or a proxy in between does not pass WebSockets on. Single images still work."],
  stream_ended: ["The stream has ended", "Press Camera to start it again."],
};

/** reason of a 503 -> what to do, where more can be said than for its code. */
export const REASONS = {
  queue_full: "Too many images are waiting. The page tries again by itself.",
  deadline_near: "Too many images are waiting. The page tries again by itself.",
  pixels_full: "The images that wait are too large together. The page tries again by itself.",
  masks_full: "Too many answers wait to be sent. The page tries again by itself.",
  connections_full: "Too many people are connected. The page tries again by itself.",
  bodies_full: "Too many images arrive at once. The page tries again by itself.",
  streams_full: "Too many cameras are connected. The page tries again by itself.",
  warming: "It is loading its model. The page goes on by itself as soon as it is there.",
  draining: "It is shutting down. The page goes on by itself when it is back.",
  stalled: "It is stuck and will restart. The page goes on by itself when it is back.",
  lost: "Its GPU is lost and it restarts. The page goes on by itself when it is back.",
};

const OF_THE_FILE = ["empty_body", "unsupported_media_type", "image_damaged", "image_too_large", "body_too_large", "unreadable"];

/** A failure. detail: in the server's own words, if it said any. */
export class Problem extends Error {
  constructor(code, { detail = "", reason = "", requestId = "", retryAfterS = 1 } = {}) {
    super(detail || code);
    Object.assign(this, { code, detail, reason, requestId, retryAfterS });
  }

  /** {title, advice}: in plain words. */
  get words() {
    const [title, advice] = WORDS[this.code] ?? [`The server refused: ${this.code}`, "Reload the page and try again."];
    return { title, advice: REASONS[this.reason] ?? advice };
  }

  /** Whether the file itself is at fault: sending it again does not help. */
  get isOfTheFile() {
    return OF_THE_FILE.includes(this.code);
  }

  /** Whether the same request succeeds later, without anybody doing anything. */
  get passes() {
    return ["overloaded", "not_ready", "unreachable"].includes(this.code);
  }
}
