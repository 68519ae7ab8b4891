// The films.

const films = []; // what `film_page.entry` gives, each with its thumbnail's button; `picture` is parsed when shown
let shown = []; // those that the filter lets through, in the order of the list
let current = null; // the film on show, its picture unpacked
const isOnly = about.findings.length === 1;
let finding = isOnly ? 0 : null; // the finding that the reader chose; without one there is no heatmap

const nameOf = (film) => film.name || "film";
const lastOf = (name) => name.slice(name.lastIndexOf("/") + 1);
const spoken = (flag) => flag.replaceAll("_", " ");
const number = (value) => value.toPrecision(3).replace("-", "−");
const percent = (share) => `${Math.round(100 * share)} %`;
const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const classifies = about.findings.length > 0;
const DECISIONS = { positive: "Positive", negative: "Negative", undecided: "No decision" };
const decision = (film, index) => film.findings.decision[index];
const probability = (film, index) => film.findings.probability[index];
// Of an ensemble, how far its members' probabilities are apart: their standard deviation.
const spread = (film, index) => film.findings.spread?.[index];
// Whether what a network says about the film is kept back: it is flagged, and nobody asked to see it anyway.
const isWithheld = (film) => classifies && !film.anyway && film.flags.some((flag) => about.withheld.includes(flag));

// Where a probability is on a bar, 0 to 1: one half at the finding's operating point, three quarters at three times its
// odds.
function place(film, index) {
  const [value, point] = [probability(film, index), about.points[index].probability];
  const above = value * (1 - point);
  const below = point * (1 - value);
  return above + below > 0 ? above / (above + below) : 0.5;
}

// The findings' numbers: positive ones first, then the nearest below their operating points; in the end, by
// probability, those that have none.
function ranked(film) {
  const rank = (index) =>
    decision(film, index) === "undecided" ? probability(film, index) - 2 : place(film, index);
  return about.findings.map((_, index) => index).sort((one, other) => rank(other) - rank(one));
}

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function addFilm(film) {
  films.push(film);
  prepare(film);
}

// Puts a film in the place of another: the same file, read again.
function replaceFilm(old, film) {
  films[films.indexOf(old)] = film;
  prepare(film);
}

// Makes the film's thumbnail.
function prepare(film) {
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
}

// The line below a thumbnail: the finding by which the list is sorted, or what was called positive.
function summary(film, sort) {
  if (!classifies) return ["confidence", film.confidence === null ? "" : film.confidence.toFixed(2)];
  if (isWithheld(film)) return ["findings withheld", ""];
  if (isOnly) return [DECISIONS[decision(film, 0)].toLowerCase(), probability(film, 0).toFixed(2)];
  if (/^\d+$/.test(sort)) return [about.findings[sort], probability(film, sort).toFixed(2)];
  const positives = ranked(film).filter((index) => decision(film, index) === "positive");
  if (positives.length) return [about.findings[positives[0]], positives.length > 1 ? `+${positives.length - 1}` : ""];
  return [about.points.some((point) => point !== null) ? "none positive" : "no decision", ""];
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
  if (kind === "positive") return !isWithheld(film) && decision(film, Number(what)) === "positive";
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
      ...(films.some((film) => film.confidence !== null) ? [option("confidence", "by lungs, least certain first")] : []),
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
  else if (sort === "confidence") shown.sort((one, other) => (one.confidence ?? 2) - (other.confidence ?? 2));
  else if (sort !== "given") {
    const value = (film) => (isWithheld(film) ? -1 : probability(film, sort));
    shown.sort((one, other) => value(other) - value(one));
  }
  for (const film of shown) {
    const [what, value] = summary(film, sort);
    film.sorted.replaceChildren(make("span", "", what), value);
  }
  element("thumbnails").replaceChildren(...shown.map((film) => film.item));
  element("count").textContent = `${shown.length} of ${films.length} films`;
  element("app").classList.toggle("single", films.length < 2);
  element("app").hidden = element("downloads").hidden = films.length === 0;
  document.title =
    films.length === 1 ? `${about.subject}: ${nameOf(films[0])}` : `${about.subject} on ${films.length} radiographs`;
  sayPlace();
}

function sayPlace() {
  if (current === null) return;
  const number = shown.indexOf(current.film);
  element("place").textContent =
    films.length < 2 ? "" : number < 0 ? "not in this list" : `${number + 1} of ${shown.length}`;
  element("previous").disabled = number <= 0;
  element("next").disabled = number === shown.length - 1 || shown.length === 0;
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

  const [width, height] = picture.screen;
  element("stage").style.setProperty("--ratio", width / height);
  element("radiograph").src = `data:image/jpeg;base64,${picture.film}`;
  element("radiograph").alt = `Radiograph ${nameOf(film)}`;
  element("name").textContent = nameOf(film);
  Object.assign(element("heatmap"), { width, height });
  showNotes(film);
  showLungs(film);
  showFindings();
  makeRoom();
  resetView();
  sayPlace();
}

// Scrolls the list until it shows an item; `scrollIntoView` would scroll the page as well.
function bringIntoList(item) {
  const list = element("thumbnails");
  const [outer, inner] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  list.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
  list.scrollLeft += Math.min(0, inner.left - outer.left) + Math.max(0, inner.right - outer.right);
}

function rectangle(box, kind) {
  const made = document.createElementNS(element("lines").namespaceURI, "rect");
  made.setAttribute("class", kind);
  setBox(made, box);
  return made;
}

function setBox(rect, [left, top, right, bottom]) {
  const values = { x: left, y: top, width: right - left, height: bottom - top };
  for (const [name, value] of Object.entries(values)) rect.setAttribute(name, value);
}

function showLungs(film) {
  const found = film.lung_box !== null;
  for (const control of document.querySelectorAll(".of-lungs")) control.hidden = !found;
  element("lines").setAttribute("viewBox", `0 0 ${film.size[0]} ${film.size[1]}`);
  element("outline").setAttribute("d", current.picture.outline);
  element("lungs").textContent = "";
  if (!found) return;
  for (const each of element("box").children) setBox(each, film.lung_box);
  const [left, top, right, bottom] = film.lung_box;
  const confidence = film.confidence === null ? "" : ` confidence ${film.confidence.toFixed(3)},`;
  const where = `columns ${left} to ${right}, rows ${top} to ${bottom} of ${film.size.join(" × ")} pixels`;
  const rules = film.rule.split("+").map((rule) => about.rules[rule]);
  element("lungs").textContent = `Lungs:${confidence} box in ${where}; ${rules.join("; ")}.`;
}

function showNotes(film) {
  const noted = film.flags.map((flag) => {
    const note = make("p", "note", about.flags[flag]);
    if (film.again && flag in about.offers) {
      const button = make("button", "", about.offers[flag]);
      button.type = "button";
      button.addEventListener("click", () => film.again(flag));
      note.append(" ", button);
    }
    return note;
  });
  const fixed = film.fixes.map((fix) => make("p", "fine", `Corrected as asked: ${about.fixes[fix]}`));
  element("flags").replaceChildren(...noted, ...fixed);
}

// The findings of the film on show, or why they are withheld, and the heatmap of the chosen one.
function showFindings() {
  const { film } = current;
  const withheld = isWithheld(film);
  element("withheld").hidden = !withheld;
  for (const id of ["all", "points", "detail"]) element(id).hidden = withheld;
  if (withheld) {
    const flags = film.flags.filter((flag) => about.withheld.includes(flag));
    const fixable = flags.filter((flag) => flag in about.offers && !film.again);
    element("why-withheld").textContent =
      `${flags.map((flag) => about.flags[flag]).join(" ")} What a network says about such a film is not to be trusted.` +
      fixable.map((flag) => ` To read it corrected: sdfn predict --fix=${flag}.`).join("");
  } else if (classifies) {
    listFindings(film);
  }
  element("points").hidden ||= about.points.every((point) => point === null);
  drawHeatmap();
}

function listFindings(film) {
  const rows = [];
  let before = null;
  for (const index of ranked(film)) {
    const called = decision(film, index);
    if (called !== before) {
      const count = film.findings.decision.filter((each) => each === called).length;
      rows.push(make("h3", called, isOnly ? DECISIONS[called] : `${DECISIONS[called]} (${count})`));
    }
    before = called;
    rows.push(rowOf(film, index));
  }
  element("list").replaceChildren(...rows);
}

function rowOf(film, index) {
  const called = decision(film, index);
  const row = make("label", `finding ${called}`);
  const radio = make("input");
  Object.assign(radio, { type: "radio", name: "finding", value: String(index), checked: index === finding });
  const bar = make("span", "bar");
  if (called !== "undecided") {
    const fill = make("span", "fill");
    fill.style.width = `${100 * place(film, index)}%`;
    bar.append(fill, make("span", "mark"));
  } else bar.className = "bar none";
  const name = make("span", "name", about.findings[index]);
  name.append(make("span", "visually-hidden", `, ${DECISIONS[called].toLowerCase()}`));
  const value = make("span", "value", probability(film, index).toFixed(3));
  if (spread(film, index) !== undefined) value.append(make("small", "", `±${spread(film, index).toFixed(3)}`));
  row.append(radio, name, bar, value);
  if (about.validation[index] !== null) row.append(make("span", "auc", aucOf(about.validation[index])));
  return row;
}

function aucOf({ auc, positives }) {
  const share = (value) => value.toFixed(2);
  const area = auc === null ? "–" : `${share(auc.value)} (${share(auc.low)}–${share(auc.high)})`;
  return `${area} ${positives.toLocaleString("en")}`;
}

// What the chosen finding's numbers rest on.
function detailOf(film, index) {
  const point = about.points[index];
  const validation = about.validation[index];
  const calibrated = film.findings.calibrated[index];
  const said = [`${about.findings[index]}: probability ${probability(film, index).toFixed(3)}`];
  said[0] += calibrated === "" ? ", not calibrated." : `, calibrated ${calibrated.toFixed(3)}.`;
  if (spread(film, index) !== undefined)
    said.push(`Mean of ${about.made_with.members.length} networks, standard deviation ${spread(film, index).toFixed(3)}.`);
  said.push(
    point === null
      ? `No decision: ${about.undecided[index]}.`
      : `Positive from ${point.probability.toFixed(3)}: sensitivity ${point.sensitivity.toFixed(2)}, specificity ` +
          `${point.specificity.toFixed(2)} on validation.`,
  );
  if (validation !== null && validation.auc !== null) {
    const { value, low, high } = validation.auc;
    said.push(`AUC there ${value.toFixed(2)}, 95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}.`);
  }
  if (validation !== null) said.push(`${plural(validation.positives, "film")} with it, ${validation.negatives} without.`);
  return said.join(" ");
}

function drawHeatmap() {
  const { film, picture } = current;
  const on = finding !== null && !isWithheld(film);
  for (const each of document.querySelectorAll(".of-finding")) each.hidden = !on;
  element("heatmap-on").disabled = !on;
  element("range").textContent = "";
  element("marks").replaceChildren();
  if (!on) {
    element("said").textContent = nameOf(film);
    element("detail").textContent = "";
    switchLayers();
    return;
  }
  const { values, low, high } = heatmapOf(film, picture, finding);
  paint(element("heatmap"), values, low, high);
  const name = about.findings[finding];
  for (const [threshold, boxes] of Object.entries(picture.boxes[about.names[finding]] ?? {})) {
    for (const box of boxes) element("marks").append(rectangle(box, "under"), rectangle(box, `over-${threshold}`));
  }
  element("marks-on").disabled = !element("marks").childElementCount;
  element("heatmap").setAttribute("aria-label", `Heatmap of ${name}`);
  element("range").textContent =
    high > low
      ? `${name}: this map is rescaled on its own, whatever the probability: its colours compare places within this ` +
        `picture, not findings or films. Before, it went from ${number(low)} to ${number(high)} (parts of the logit).`
      : `${name}: this map is the same everywhere and points nowhere.`;
  element("detail").textContent = detailOf(film, finding);
  element("said").textContent = `${nameOf(film)}, ${name}, probability ${probability(film, finding).toFixed(3)}`;
  switchLayers();
}

function choose(index) {
  finding = index;
  drawHeatmap();
}

function chooseNone() {
  for (const radio of element("list").querySelectorAll("input:checked")) radio.checked = false;
  choose(null);
}

function switchLayers() {
  const off = (id) => !element(`${id}-on`).checked || element(`${id}-on`).disabled;
  element("heatmap").hidden = off("heatmap");
  element("marks").toggleAttribute("hidden", off("marks") || off("heatmap"));
  for (const id of ["box", "outline"]) {
    element(id).toggleAttribute("hidden", off(id) || current === null || current.film.lung_box === null);
  }
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
  if (element("all").hidden) return;
  const radios = [...element("list").querySelectorAll("input")];
  const next = radios[Math.max(radios.findIndex((radio) => radio.checked) + by, 0)];
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
  x: () => toggle("marks-on"),
  b: () => toggle("box-on"),
  o: () => toggle("outline-on"),
  Escape: chooseNone,
  ...VIEW_KEYS,
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
    current === null
  )
    return;
  const move = event.shiftKey ? MOVES[event.key] : undefined;
  const act = move === undefined ? KEYS[event.key] : () => moveBy(...move);
  if (act === undefined) return;
  event.preventDefault();
  act();
});
element("list").addEventListener("change", (event) => choose(Number(event.target.value)));
element("previous").addEventListener("click", () => step(-1));
element("next").addEventListener("click", () => step(1));
element("help").addEventListener("click", () => element("keys").showModal());
element("anyway").addEventListener("click", () => {
  current.film.anyway = true;
  listFilms();
  showFindings();
});
for (const id of ["heatmap-on", "marks-on", "box-on", "outline-on"]) element(id).addEventListener("change", switchLayers);
element("strength").addEventListener("input", switchLayers);
element("filter").addEventListener("change", listFilms);
element("search").addEventListener("input", listFilms);
element("sort").addEventListener("change", () => {
  listFilms();
  if (/^\d+$/.test(element("sort").value)) finding = Number(element("sort").value);
  if (shown.length) show(shown[0]);
});

element("filters").open = !window.matchMedia("(max-width: 52rem)").matches; // as film.css
element("findings").hidden = !classifies;
if (isOnly) element("all").querySelector("legend").textContent = "Its heatmap is on the film.";
document.querySelector(".point").classList.toggle("none", about.points.every((point) => point === null));
document.querySelector(".key").hidden = about.validation.every((each) => each === null);
element("app").classList.toggle("lungs", !classifies);
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
