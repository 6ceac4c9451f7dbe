// Sets up every page. Pages work without scripts; with them, searches and errors stay on the page.

import { fillBar } from "./bar.js";
import { copyOnClick } from "./copy.js";
import { listenToFilters } from "./filters.js";
import { growGrids } from "./grid.js";
import { takePictures } from "./intake.js";
import { listenForKeys } from "./keys.js";
import { busyWhileLeaving } from "./notices.js";
import { followLinks, stop } from "./pages.js";
import { viewPhotos } from "./photos.js";
import { showRecent } from "./recent.js";
import { watchRun } from "./run.js";

viewPhotos();
followLinks();
takePictures(fillBar());
listenToFilters();
growGrids();
showRecent();
copyOnClick();
listenForKeys({ escape: stop });
busyWhileLeaving();
watchRun();
