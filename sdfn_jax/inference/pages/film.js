"use strict";

const about = JSON.parse(document.querySelector("script.about").textContent);
const element = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colours = bytes(about.colours); // 256 x (red, green, blue), cold to hot

// Heatmaps. The page holds each map as its few cells, because 14 pictures of each film would make it ten times as large; so
// the browser enlarges, adds and rescales them as cam.py does (`on_radiograph`, `rescale`), and a test compares the two.

// Weights of Pillow's bilinear filter for some pixels of a map of `cells` cells enlarged to `length` pixels.
function weightsOf(cells, length, pixels) {
  const scale = cells / length;
  const support = Math.max(scale, 1);
  return pixels.map((pixel) => {
    const centre = (pixel + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5));
    const last = Math.min(cells, Math.floor(centre + support + 0.5));
    const weights = [];
    for (let cell = first; cell < last; cell++) {
      weights.push(Math.max(0, 1 - Math.abs((cell - centre + 0.5) / support)));
    }
    const sum = weights.reduce((left, right) => left + right, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

// Adds a map, enlarged to a box of the radiograph, at the given rows and columns of the radiograph's pixels.
function lay(onto, map, [left, top, right, bottom], rows, columns) {
  const inside = (places, start, stop) => places.findLastIndex((place) => place < stop) + 1;
  const firstRow = rows.findIndex((row) => row >= top);
  const firstColumn = columns.findIndex((column) => column >= left);
  if (firstRow < 0 || firstColumn < 0) return;
  const lastRow = inside(rows, top, bottom);
  const lastColumn = inside(columns, left, right);
  const down = weightsOf(
    map.height,
    bottom - top,
    rows.slice(firstRow, lastRow).map((row) => row - top),
  );
  const across = weightsOf(
    map.width,
    right - left,
    columns.slice(firstColumn, lastColumn).map((column) => column - left),
  );
  const wide = Array.from({ length: map.height }, (_, y) =>
    Float64Array.from(across, ({ first, weights }) =>
      weights.reduce((sum, weight, k) => sum + weight * map.values[y * map.width + first + k], 0),
    ),
  );
  down.forEach(({ first, weights }, y) => {
    const start = (firstRow + y) * columns.length + firstColumn;
    weights.forEach((weight, k) => {
      const row = wide[first + k];
      for (let x = 0; x < row.length; x++) onto[start + x] += weight * row[x];
    });
  });
}

// Pixels between which no map bends or ends: the extremes of the sum over all pixels are among these.
function corners(boxes, length) {
  const found = new Set([0, length - 1]);
  for (const { start, stop, cells } of boxes) {
    for (const place of [start - 1, start, stop - 1, stop]) found.add(place);
    for (let cell = 0; cell < cells; cell++) {
      const bend = start + ((cell + 0.5) * (stop - start)) / cells - 0.5;
      found.add(Math.floor(bend)).add(Math.ceil(bend));
    }
  }
  return [...found].filter((place) => place >= 0 && place < length).sort((left, right) => left - right);
}

// The sum of a finding's maps on the radiograph (eq. 6), read at `screen` pixels, and its extremes over the radiograph.
function heatmapOf(film, picture, finding) {
  const [width, height] = film.size;
  const [columnCount, rowCount] = picture.screen;
  const layers = Object.entries(picture.maps).map(([branch, { shape, values }]) => {
    const cells = shape[0] * shape[1];
    const numbers = new Float32Array(bytes(values).buffer).subarray(finding * cells, (finding + 1) * cells);
    return {
      map: { height: shape[0], width: shape[1], values: numbers },
      box: about.cropped.includes(branch) ? film.lung_box : [0, 0, width, height],
    };
  });
  const at = (rows, columns) => {
    const sum = new Float32Array(rows.length * columns.length);
    for (const { map, box } of layers) lay(sum, map, box, rows, columns);
    return sum;
  };
  const under = (count, length) => Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * length) / count));
  const values = at(under(rowCount, height), under(columnCount, width));
  const extremes = at(
    corners(
      layers.map(({ map, box }) => ({ start: box[1], stop: box[3], cells: map.height })),
      height,
    ),
    corners(
      layers.map(({ map, box }) => ({ start: box[0], stop: box[2], cells: map.width })),
      width,
    ),
  );
  let low = Infinity;
  let high = -Infinity;
  for (const some of [values, extremes]) {
    for (const value of some) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return { values, low, high };
}

// Hot places cover the film, cold ones leave it bare: the opacity of a pixel is its value, 0 to 255.
function paint(canvas, values, low, high) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(canvas.width, canvas.height);
  const scale = high > low ? 255 / (high - low) : 0;
  values.forEach((value, index) => {
    const grey = (value - low) * scale;
    const colour = 3 * Math.min(255, Math.floor((grey * 256) / 255));
    image.data[4 * index] = colours[colour];
    image.data[4 * index + 1] = colours[colour + 1];
    image.data[4 * index + 2] = colours[colour + 2];
    image.data[4 * index + 3] = Math.round(grey);
  });
  context.putImageData(image, 0, 0);
}

// The films.

const films = []; // what `film_page.entry` gives, each with its thumbnail's button; `picture` is parsed when shown
let shown = []; // those that the filter lets through, in the order of the list
let current = null; // the film on show, its picture unpacked
let finding = null; // the finding on show
let chosen = false; // whether the reader chose it; until then each film shows its most probable one

const nameOf = (film) => film.name || "film";
const lastOf = (name) => name.slice(name.lastIndexOf("/") + 1);
const spoken = (flag) => flag.replaceAll("_", " ");
const number = (value) => value.toPrecision(3).replace("-", "−");
const percent = (share) => `${Math.round(100 * share)} %`;
const positive = (film, index) => about.points[index] !== null && film.probabilities[index] >= about.points[index][0];
const byProbability = (film) =>
  about.findings.map((_, index) => index).sort((one, other) => film.probabilities[other] - film.probabilities[one]);

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function addFilm(film) {
  film.number = films.push(film);
  const top = byProbability(film)[0];
  const button = make("button");
  button.type = "button";
  button.tabIndex = -1;
  const image = make("img");
  image.alt = "";
  image.loading = "lazy";
  image.decoding = "async";
  image.src = `data:image/jpeg;base64,${film.thumbnail}`;
  film.sorted = make("span", "sorted");
  const name = make("span");
  name.append(make("bdi", "", lastOf(nameOf(film))));
  button.append(image, name, film.sorted);
  if (film.flags.length) {
    const flags = film.flags.length === 1 ? spoken(film.flags[0]) : `${film.flags.length} flags`;
    button.append(make("span", "flagged", `⚑ ${flags}`));
  }
  button.title = nameOf(film);
  button.addEventListener("click", () => show(film));
  film.item = make("li");
  film.item.append(button);
  film.button = button;
  film.top = top;
}

function option(value, text) {
  const made = make("option", "", text);
  made.value = value;
  return made;
}

// Which films a filter lets through, by the value of its option.
function passes(film, filter) {
  const [kind, what] = filter.split(":");
  if (kind === "flagged") return film.flags.length > 0;
  if (kind === "flag") return film.flags.includes(what);
  if (kind === "positive") return positive(film, Number(what));
  return true;
}

function fillFilters() {
  const flags = [...new Set(films.flatMap((film) => film.flags))].sort();
  const filters = [["all", "all films"]];
  if (flags.length)
    filters.push(["flagged", "any flag"], ...flags.map((flag) => [`flag:${flag}`, `flag: ${spoken(flag)}`]));
  about.findings.forEach((name, index) => {
    if (about.points[index] !== null) filters.push([`positive:${index}`, `${name}: positive`]);
  });
  const before = element("filter").value;
  element("filter").replaceChildren(
    ...filters.map(([value, text]) => option(value, `${text} (${films.filter((film) => passes(film, value)).length})`)),
  );
  if (filters.some(([value]) => value === before)) element("filter").value = before;
  if (!element("sort").options.length) {
    element("sort").append(
      option("given", "as given"),
      option("name", "by name"),
      ...about.findings.map((name, index) => option(String(index), `by ${name}`)),
    );
  }
}

function listFilms() {
  const sort = element("sort").value;
  const search = element("search").value.toLowerCase();
  shown = films.filter((film) => passes(film, element("filter").value) && nameOf(film).toLowerCase().includes(search));
  if (sort === "name")
    shown.sort((one, other) => nameOf(one).localeCompare(nameOf(other), undefined, { numeric: true }));
  else if (sort !== "given") shown.sort((one, other) => other.probabilities[sort] - one.probabilities[sort]);
  for (const film of shown) {
    const index = /^\d+$/.test(sort) ? Number(sort) : film.top;
    film.sorted.replaceChildren(make("span", "", about.findings[index]), film.probabilities[index].toFixed(2));
  }
  element("thumbnails").replaceChildren(...shown.map((film) => film.item));
  element("count").textContent = `${shown.length} of ${films.length} films`;
  element("app").classList.toggle("single", films.length < 2);
  element("app").hidden = films.length === 0;
  document.title = films.length === 1 ? `Findings: ${nameOf(films[0])}` : `Findings on ${films.length} radiographs`;
  sayPlace();
}

function sayPlace() {
  if (current === null) return;
  const place = shown.indexOf(current.film);
  element("place").textContent =
    films.length < 2 ? "" : place < 0 ? "not in this list" : `${place + 1} of ${shown.length}`;
  element("previous").disabled = place <= 0;
  element("next").disabled = place === shown.length - 1 || shown.length === 0;
}

function show(film) {
  const picture = film.picture();
  if (current !== null) {
    current.film.button.removeAttribute("aria-current");
    current.film.button.tabIndex = -1;
  }
  current = { film, picture };
  film.button.setAttribute("aria-current", "true");
  film.button.tabIndex = 0;
  bringIntoList(film.item);
  if (!chosen) finding = film.top;

  const [width, height] = picture.screen;
  element("stage").style.setProperty("--ratio", width / height);
  element("radiograph").src = `data:image/jpeg;base64,${picture.film}`;
  element("radiograph").alt = `Radiograph ${nameOf(film)}`;
  element("name").textContent = nameOf(film);
  Object.assign(element("heatmap"), { width, height });
  showBox(film);
  showNotes(film);
  listFindings(film);
  drawHeatmap();
  sayPlace();
}

// Scrolls the list until it shows an item; `scrollIntoView` would scroll the page as well.
function bringIntoList(item) {
  const list = element("thumbnails");
  const [outer, inner] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  list.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
}

function showBox(film) {
  element("box-control").hidden = film.lung_box === null;
  element("lungs").textContent = "";
  if (film.lung_box !== null) {
    const [left, top, right, bottom] = film.lung_box;
    element("box").setAttribute("viewBox", `0 0 ${film.size[0]} ${film.size[1]}`);
    for (const rectangle of element("box").children) {
      rectangle.setAttribute("x", left);
      rectangle.setAttribute("y", top);
      rectangle.setAttribute("width", right - left);
      rectangle.setAttribute("height", bottom - top);
    }
    const place = `columns ${left} to ${right}, rows ${top} to ${bottom} of ${film.size.join(" × ")} pixels`;
    const rules = film.rule.split("+").map((rule) => about.rules[rule]);
    element("lungs").textContent = `Lung box: ${place}; ${rules.join("; ")}.`;
  }
  switchLayers();
}

function showNotes(film) {
  element("flags").replaceChildren(
    ...film.flags.map((flag) => make("p", "note", about.flags[flag])),
    ...film.fixes.map((fix) => make("p", "fine", `Corrected as asked: ${about.fixes[fix]}`)),
  );
}

function listFindings(film) {
  element("list").replaceChildren(
    ...byProbability(film).map((index) => {
      const point = about.points[index];
      const called = positive(film, index);
      const row = make("label", called ? "finding positive" : "finding");
      const radio = make("input");
      Object.assign(radio, { type: "radio", name: "finding", value: String(index), checked: index === finding });
      const value = make("span", "value", film.probabilities[index].toFixed(3));
      if (film.calibrated[index] !== null)
        value.prepend(make("small", "", `calibrated ${film.calibrated[index].toFixed(3)}`), " ");
      const bar = make("span", "bar");
      const fill = make("span", "fill");
      fill.style.width = `${100 * film.probabilities[index]}%`;
      bar.append(fill);
      const name = make("span", "name", about.findings[index]);
      row.append(radio, name, value, bar);
      if (point !== null) {
        const mark = make("span", "mark");
        mark.style.left = `${100 * point[0]}%`;
        bar.append(mark);
        name.append(" ", make("small", "", called ? "positive" : "negative"));
        row.append(
          make(
            "span",
            "fine",
            `from ${point[0].toFixed(3)}: sensitivity ${point[1].toFixed(2)}, specificity ${point[2].toFixed(2)}`,
          ),
        );
      } else {
        name.append(" ", make("small", "", "no decision"));
        row.append(make("span", "fine", about.undecided[index]));
      }
      return row;
    }),
  );
}

function drawHeatmap() {
  const { film, picture } = current;
  const { values, low, high } = heatmapOf(film, picture, finding);
  paint(element("heatmap"), values, low, high);
  const name = about.findings[finding];
  element("heatmap").setAttribute("aria-label", `Heatmap of ${name}`);
  element("range").textContent =
    high > low
      ? `${name}: this map is rescaled on its own, whatever the probability. Its colours compare places within this ` +
        `picture, not findings or films. Before rescaling it went from ${number(low)} to ${number(high)} (parts of ` +
        "the logit)."
      : `${name}: this map is the same everywhere and points nowhere.`;
  element("said").textContent = `${nameOf(film)}, ${name}, probability ${film.probabilities[finding].toFixed(3)}`;
}

function choose(index) {
  finding = index;
  chosen = true;
  drawHeatmap();
}

function switchLayers() {
  element("heatmap").hidden = !element("heatmap-on").checked;
  element("box").toggleAttribute(
    "hidden",
    !element("box-on").checked || current === null || current.film.lung_box === null,
  );
  const strength = element("strength").value / 100;
  for (const canvas of ["heatmap", "scale"]) element(canvas).style.opacity = strength;
  element("strength-said").textContent = percent(strength);
}

// The controls.

function step(by) {
  const next = shown[shown.indexOf(current.film) + by];
  if (next === undefined) return;
  const focused = element("thumbnails").contains(document.activeElement);
  show(next);
  if (focused) next.button.focus();
}

function stepFinding(by) {
  const radios = [...element("list").querySelectorAll("input")];
  const next = radios[radios.findIndex((radio) => radio.checked) + by];
  if (next === undefined) return;
  next.checked = true;
  next.focus();
  choose(Number(next.value));
}

function toggle(id) {
  element(id).checked = !element(id).checked;
  switchLayers();
}

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  k: () => step(-1),
  j: () => step(1),
  ArrowUp: () => stepFinding(-1),
  ArrowDown: () => stepFinding(1),
  h: () => toggle("heatmap-on"),
  b: () => toggle("box-on"),
  "?": () => element("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("select, input[type=search], input[type=range]");
  if (
    typing ||
    event.ctrlKey ||
    event.metaKey ||
    event.altKey ||
    element("keys").open ||
    current === null ||
    !(event.key in KEYS)
  )
    return;
  event.preventDefault();
  KEYS[event.key]();
});
element("list").addEventListener("change", (event) => choose(Number(event.target.value)));
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("help").addEventListener("click", () => element("keys").showModal());
for (const id of ["heatmap-on", "box-on"]) element(id).addEventListener("change", switchLayers);
element("strength").addEventListener("input", switchLayers);
element("filter").addEventListener("change", listFilms);
element("search").addEventListener("input", listFilms);
element("sort").addEventListener("change", () => {
  listFilms();
  if (/^\d+$/.test(element("sort").value)) {
    finding = Number(element("sort").value);
    chosen = true;
  }
  if (shown.length) show(shown[0]);
});

element("filters").open = !window.matchMedia("(max-width: 46rem)").matches; // as film.css
element("points").hidden = about.points.every((point) => point === null);
element("strength").value = 100 * about.strength;
paint(
  element("scale"),
  Float32Array.from({ length: 256 }, (_, value) => value),
  0,
  255,
);
for (const card of document.querySelectorAll("script.card")) {
  const picture = card.nextElementSibling;
  addFilm({ ...JSON.parse(card.textContent), picture: () => JSON.parse(picture.textContent) });
}
fillFilters();
listFilms();
switchLayers();
if (films.length) show(films[0]);
