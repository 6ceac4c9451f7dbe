// The user's own pictures, kept in this browser so that their results can be reloaded. The server keeps none.

const MOST = { files: 20, bytes: 100e6, words: 20 }; // the oldest are removed first; the latest always stays
const visit = new Map(); // key -> file: the latest, or all of this visit if the browser cannot store them
let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("visual-search", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("files");
      request.result.createObjectStore("recent", { keyPath: "key" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

/** Calls `use(recent, files)`, the two stores, in one transaction; resolves to the result of the request it returns. */
async function within(mode, use) {
  const transaction = (await database()).transaction(["recent", "files"], mode);
  const request = use(transaction.objectStore("recent"), transaction.objectStore("files"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** Keeps a file under its key, with the address of a small copy to show; resolves to whether it could be stored. */
export async function keep(key, file, picture) {
  visit.set(key, file);
  try {
    await within("readwrite", (recent, files) => {
      recent.put({ key, name: file.name, size: file.size, picture, used: Date.now() });
      files.count(key).onsuccess = ({ target }) => target.result || files.put(file, key);
      forgetOldest(recent, files);
    });
    for (const other of visit.keys()) if (other !== key) visit.delete(other);
    return true;
  } catch {
    for (const other of visit.keys()) if (visit.size > MOST.files) visit.delete(other);
    return false;
  }
}

/** Records the words of a search. */
export async function noteWords(words) {
  await within("readwrite", (recent, files) => {
    recent.put({ key: `words:${words}`, words, used: Date.now() });
    forgetOldest(recent, files);
  }).catch(() => {}); // they are in the address too
}

function forgetOldest(recent, files) {
  recent.getAll().onsuccess = ({ target }) => {
    let [pictures, bytes, words] = [0, 0, 0];
    for (const { key, size } of latestFirst(target.result)) {
      const isPicture = size !== undefined;
      if (isPicture) [pictures, bytes] = [pictures + 1, bytes + size];
      else words += 1;
      if (isPicture ? pictures === 1 || (pictures <= MOST.files && bytes <= MOST.bytes) : words <= MOST.words) continue;
      recent.delete(key);
      files.delete(key);
    }
  };
}

const latestFirst = (entries) => entries.sort((a, b) => b.used - a.used);

/** Resolves to the file kept under a key, or to null. */
export async function file(key) {
  return visit.get(key) ?? (await within("readonly", (_, files) => files.get(key)).catch(() => null)) ?? null;
}

/** Resolves to recent searches, latest first: {key, name, picture} for a picture, {key, words} for words. */
export async function recent() {
  return latestFirst(await within("readonly", (entries) => entries.getAll()).catch(() => []));
}

/** Deletes everything. */
export async function clear() {
  visit.clear();
  await within("readwrite", (entries, files) => {
    entries.clear();
    files.clear();
  }).catch(() => {});
}
