// Zoom, movement, window and level of the film on show, by wheel, mouse, fingers and keys.

const MOST_ZOOM = 16;
const LEAST_WINDOW = 4; // grey levels
const view = { zoom: 1, x: 0.5, y: 0.5, window: 255, level: 127.5 }; // x, y: place of the film in the stage's centre
const stage = element("stage");
const pointers = new Map(); // those that are down, by their id: [x, y] where they were last

const between = (low, value, high) => Math.min(Math.max(value, low), high);

// The film's size in the stage, in CSS pixels, at a zoom; at 1 all of it is seen.
function sizeAt(zoom) {
  const [width, height] = current.picture.screen;
  const scale = zoom * Math.min(stage.clientWidth / width, stage.clientHeight / height);
  return [width * scale, height * scale];
}

// Gives the stage the height that the window leaves below what is above it.
function makeRoom() {
  stage.style.setProperty("--above", `${stage.getBoundingClientRect().top + scrollY}px`);
}

// Puts the sheet where `view` says; a film never leaves the stage. Its size is set, not a transform, so that the
// lines on it keep their width.
function layOut() {
  if (current === null) return;
  const sheet = element("sheet");
  const [width, height] = sizeAt(view.zoom);
  const at = (place, length, room) =>
    length <= room ? (room - length) / 2 : between(room - length, room / 2 - place * length, 0);
  const left = at(view.x, width, stage.clientWidth);
  const top = at(view.y, height, stage.clientHeight);
  view.x = (stage.clientWidth / 2 - left) / width;
  view.y = (stage.clientHeight / 2 - top) / height;
  Object.assign(sheet.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
  // At 1 a finger scrolls the page; two fingers are ours in any case.
  const moves = view.zoom > 1 || element("contrast").getAttribute("aria-pressed") === "true";
  stage.style.touchAction = moves ? "none" : "pan-x pan-y";
  element("zoom").textContent = `${view.zoom.toFixed(1)}×`;
  element("smaller").disabled = view.zoom <= 1;
  element("larger").disabled = view.zoom >= MOST_ZOOM;
}

// Zooms so that the place of the film at (x, y) of the window stays there; by default the centre of the stage.
function zoomBy(factor, x, y) {
  const { left, top } = stage.getBoundingClientRect();
  const [middleX, middleY] = [stage.clientWidth / 2, stage.clientHeight / 2];
  const [awayX, awayY] = x === undefined ? [0, 0] : [x - left - middleX, y - top - middleY];
  const [before] = [sizeAt(view.zoom)];
  view.zoom = between(1, view.zoom * factor, MOST_ZOOM);
  const after = sizeAt(view.zoom);
  view.x += awayX / before[0] - awayX / after[0];
  view.y += awayY / before[1] - awayY / after[1];
  layOut();
}

function moveBy(x, y) {
  const [width, height] = sizeAt(view.zoom);
  view.x -= x / width;
  view.y -= y / height;
  layOut();
}

// Shows `window` grey levels around `level` between black and white.
function showWindow() {
  const whole = view.window === 255 && view.level === 127.5;
  for (const channel of element("grey").querySelectorAll("feFuncR, feFuncG, feFuncB")) {
    channel.setAttribute("slope", 255 / view.window);
    channel.setAttribute("intercept", 0.5 - view.level / view.window);
  }
  element("radiograph").style.filter = whole ? "" : "url(#grey)";
  element("window").textContent = whole
    ? ""
    : `Grey levels ${Math.round(view.level - view.window / 2)} to ${Math.round(view.level + view.window / 2)} of 255.`;
}

function windowBy(wider, higher) {
  view.window = between(LEAST_WINDOW, view.window + wider, 510);
  view.level = between(0, view.level + higher, 255);
  showWindow();
}

function resetView() {
  Object.assign(view, { zoom: 1, x: 0.5, y: 0.5, window: 255, level: 127.5 });
  showWindow();
  layOut();
}

function switchContrast() {
  const button = element("contrast");
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
  layOut();
}

stage.addEventListener(
  "wheel",
  (event) => {
    const outwards = event.deltaY > 0;
    if (event.deltaY === 0 || (outwards ? view.zoom <= 1 : view.zoom >= MOST_ZOOM)) return; // the page scrolls
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 40;
    zoomBy(Math.exp(between(-0.4, (-event.deltaY * lines) / 400, 0.4)), event.clientX, event.clientY);
  },
  { passive: false },
);

let windowing = false; // whether the drag under way changes window and level
stage.addEventListener("pointerdown", (event) => {
  if (event.button === 1) return;
  windowing = event.button === 2 || event.shiftKey || element("contrast").getAttribute("aria-pressed") === "true";
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  stage.setPointerCapture(event.pointerId);
  stage.classList.add("held");
});
stage.addEventListener("pointermove", (event) => {
  if (!pointers.has(event.pointerId)) return;
  const before = [...pointers.values()];
  const [x, y] = pointers.get(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (before.length === 2) {
    const after = [...pointers.values()];
    const apart = ([[x1, y1], [x2, y2]]) => Math.hypot(x1 - x2, y1 - y2);
    const middle = ([[x1, y1], [x2, y2]]) => [(x1 + x2) / 2, (y1 + y2) / 2];
    const [[fromX, fromY], [toX, toY]] = [middle(before), middle(after)];
    zoomBy(apart(after) / Math.max(apart(before), 1), toX, toY);
    moveBy(toX - fromX, toY - fromY);
  } else if (windowing) {
    windowBy(event.clientX - x, event.clientY - y);
  } else {
    moveBy(event.clientX - x, event.clientY - y);
  }
});
for (const end of ["pointerup", "pointercancel"]) {
  stage.addEventListener(end, (event) => {
    pointers.delete(event.pointerId);
    if (!pointers.size) stage.classList.remove("held");
  });
}
stage.addEventListener("contextmenu", (event) => event.preventDefault());
stage.addEventListener("dblclick", (event) =>
  view.zoom > 1 ? resetView() : zoomBy(3, event.clientX, event.clientY),
);
element("smaller").addEventListener("click", () => zoomBy(1 / 1.5));
element("larger").addEventListener("click", () => zoomBy(1.5));
element("reset").addEventListener("click", resetView);
element("contrast").addEventListener("click", switchContrast);
new ResizeObserver(layOut).observe(stage);
addEventListener("resize", makeRoom);

const VIEW_KEYS = {
  "+": () => zoomBy(1.25),
  "=": () => zoomBy(1.25),
  "-": () => zoomBy(1 / 1.25),
  0: resetView,
  c: switchContrast,
  "[": () => windowBy(-16, 0),
  "]": () => windowBy(16, 0),
  ",": () => windowBy(0, 8),
  ".": () => windowBy(0, -8),
};
const MOVES = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] };
