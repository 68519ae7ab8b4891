// Films dropped on the viewer's page.

const upload = element("upload");
const largest = Number(upload.dataset.limit);
let queue = Promise.resolve(); // one film after the other

function sayError(file, text) {
  const line = make("p", "note");
  line.append(make("bdi", "", file.name), `: ${text}`);
  element("errors").append(line);
}

// Sends a film and its name's suffix, never the name, and shows what comes back.
async function read(file) {
  if (file.size > largest) {
    sayError(file, `${(file.size / 1e6).toFixed(0)} MB; the viewer takes films of at most ${largest / 1e6} MB.`);
    return;
  }
  const suffix = encodeURIComponent((/\.[a-z]{1,5}$/i.exec(file.name) ?? [""])[0]);
  let answer;
  try {
    answer = await fetch(`readings?suffix=${suffix}`, { method: "POST", body: await file.arrayBuffer() });
  } catch (error) {
    sayError(
      file,
      error instanceof TypeError ? "the viewer does not answer; is it still running?" : "this file cannot be opened.",
    );
    return;
  }
  const said = await answer.json().catch(() => ({ error: `the viewer answered ${answer.status}.` }));
  if (!answer.ok) {
    sayError(file, said.error);
    return;
  }
  const film = { ...said, name: file.name, picture: () => said.picture };
  addFilm(film);
  fillFilters();
  listFilms();
  show(film);
  upload.classList.remove("first");
}

function readAll(chosen) {
  element("errors").replaceChildren();
  for (const file of chosen) {
    queue = queue.then(async () => {
      element("reading").textContent = `Reading ${file.name} …`;
      await read(file);
      element("reading").textContent = "";
    });
  }
}

element("files").addEventListener("change", () => {
  readAll([...element("files").files]);
  element("files").value = ""; // so that the same film can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  upload.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) upload.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  upload.classList.remove("over");
  readAll([...event.dataTransfer.files]);
});
