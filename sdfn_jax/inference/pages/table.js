// The table of all films on this page, for a spreadsheet (as `predictions.csv`) or as JSON; nothing leaves the machine.

const columnsOfFindings = about.names.flatMap((name) => about.finding_columns.map((column) => `${column}_${name}`));
const cellsOf = (film) => [
  ...film.cells,
  ...about.names.flatMap((_, index) => about.finding_columns.map((column) => film.findings[column][index])),
];

// Text that a spreadsheet would run gets ' before it, as `csv_table.harmless` says.
function harmless(text) {
  const line = text
    .replace(/\\udc([0-9a-f]{2})/g, "\\udc5cudc$1")
    .replace(/[\r\n]/g, (end) => `\\udc0${end.charCodeAt(0).toString(16)}`);
  return /^'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|^'*\t/.test(line) ? `'${line}` : line;
}

function csvCell(value) {
  if (typeof value !== "string") return String(value);
  const text = harmless(value);
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv() {
  const rows = [[...about.columns, ...columnsOfFindings], ...films.map(cellsOf)];
  return rows.map((row) => `${row.map(csvCell).join(",")}\n`).join("");
}

function json() {
  const images = films.map((film) => ({
    ...Object.fromEntries(about.columns.map((column, index) => [column, film.cells[index]])),
    findings: Object.fromEntries(
      about.names.map((name, index) => [
        name,
        Object.fromEntries(about.finding_columns.map((column) => [column, film.findings[column][index]])),
      ]),
    ),
  }));
  const note = document.querySelector(".research").textContent;
  return `${JSON.stringify({ note, made_with: about.made_with, images }, null, 2)}\n`;
}

function download(name, type, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

const fileName = about.subject.toLowerCase();
element("csv").addEventListener("click", () => download(`${fileName}.csv`, "text/csv", csv()));
element("json").addEventListener("click", () => download(`${fileName}.json`, "application/json", json()));
