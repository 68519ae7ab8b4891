// Films dropped on the viewer's page.

const upload = element("upload");
const largest = Number(upload.dataset.limit);
let queue = Promise.resolve(); // one film after the other
let asked = 0; // films in the queue since it was last empty,
let begun = 0; // and those of them that are read or being read

function sayError(file, text) {
  const line = make("p", "note");
  line.append(make("bdi", "", file.name), `: ${text}`);
  element("errors").append(line);
}

// Sends a film and its name's suffix, never the name. Returns what comes back, or null and says why.
async function read(file, fix) {
  if (file.size > largest) {
    sayError(file, `${(file.size / 1e6).toFixed(0)} MB; the viewer takes films of at most ${largest / 1e6} MB.`);
    return null;
  }
  const query = new URLSearchParams({ suffix: (/\.[a-z]{1,5}$/i.exec(file.name) ?? [""])[0] });
  if (fix) query.append("fix", fix);
  let answer;
  try {
    answer = await fetch(`readings?${query}`, { method: "POST", body: await file.arrayBuffer() });
  } catch (error) {
    sayError(
      file,
      error instanceof TypeError ? "the viewer does not answer; is it still running?" : "this file cannot be opened.",
    );
    return null;
  }
  const said = await answer.json().catch(() => ({ error: `the viewer answered ${answer.status}.` }));
  if (!answer.ok) {
    sayError(file, said.error);
    return null;
  }
  const film = { ...said, name: file.name, picture: () => said.picture };
  film.cells[0] = file.name;
  film.again = (flag) => enqueue(file, async () => readAgain(film, file, flag));
  return film;
}

// Reads the film on show once more, corrected, in its place.
async function readAgain(old, file, fix) {
  const film = await read(file, fix);
  if (film === null) return;
  replaceFilm(old, film);
  fillFilters();
  listFilms();
  if (current.film === old) show(film);
}

function enqueue(file, work) {
  asked += 1;
  queue = queue.then(async () => {
    begun += 1;
    element("reading").textContent = `Reading ${asked > 1 ? `${begun} of ${asked}: ` : ""}${file.name} …`;
    await work();
    if (begun < asked) return;
    asked = begun = 0;
    element("reading").textContent = "";
  });
}

// Reads files one after the other. The view stays where the reader is; one film alone is shown when it is there.
function readAll(files) {
  element("errors").replaceChildren();
  for (const file of files) {
    enqueue(file, async () => {
      const film = await read(file);
      if (film === null) return;
      addFilm(film);
      fillFilters();
      listFilms();
      upload.classList.remove("first");
      if (current === null || files.length === 1) show(film);
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
