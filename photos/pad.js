// A canvas to draw on by mouse, pen or finger. Gradio runs this when the page has it:
// `element` holds the canvas, photos/demo.py is given `props.value` at each `trigger`.
const canvas = element.querySelector("canvas");
const side = canvas.width;
const pen = canvas.getContext("2d", { willReadFrequently: true });
const PAUSE = 200; // milliseconds between two readings; sooner, they might overtake
let last = null; // where the pen is; null while it is lifted
let sent = -PAUSE; // when we last sent the drawing
let timer = null; // of the next time

function clear() {
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = side / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

function draw(event) {
  const now = place(event);
  pen.lineWidth = Number(canvas.dataset.pen);
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#000";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...now);
  pen.stroke();
  last = now;
}

// Sends the ink, a byte per pixel, 255 where the canvas is black. It is not sent with
// the event: if a reading is under way, Gradio repeats that event after it, but with
// the newest value.
function send() {
  const { data } = pen.getImageData(0, 0, side, side);
  const ink = Array.from({ length: side * side }, (_, i) => 255 - data[4 * i]);
  props.value = btoa(ink.map((byte) => String.fromCharCode(byte)).join(""));
  trigger("input");
  sent = performance.now();
  timer = null;
}

function change() {
  timer ??= setTimeout(send, Math.max(0, sent + PAUSE - performance.now()));
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  draw(event);
});
canvas.addEventListener("pointermove", (event) => {
  if (!last) return;
  draw(event);
  change();
});
for (const end of ["pointerup", "pointercancel"])
  canvas.addEventListener(end, () => {
    if (last) change();
    last = null;
  });
element.querySelector("button").addEventListener("click", () => {
  clear();
  change();
});
clear();
