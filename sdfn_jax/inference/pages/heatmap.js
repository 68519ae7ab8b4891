"use strict";

const about = JSON.parse(document.querySelector("script.about").textContent);
const element = (id) => document.getElementById(id);
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colours = bytes(about.colours); // 256 x (red, green, blue), cold to hot

// Heatmaps. The page holds each map as its few cells, because a picture of each finding of each film would make it ten times as large;
// so the browser enlarges, adds and rescales them as cam.py does (`on_radiograph`, `rescale`), and a test compares the two.
// The page's maps are relative to what they count as outside their box (`relative_to_outside`), which is 0 here.

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

// The sum of a finding's maps on the radiograph, read at `screen` pixels, and its extremes over the radiograph.
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
