// Wires the page. Every page works without this; with it, searches and errors stay on the page.

import { copyOnClick } from "./copy.js";
import { takePictures } from "./intake.js";
import { judgeOnClick, stopJudging } from "./judging.js";
import { listenForKeys } from "./keys.js";
import { loadMoreOnClick } from "./more.js";
import { busyWhileLeaving } from "./notices.js";
import { watchRun } from "./run.js";
import { chooseAgain, searchBy, stopSearch } from "./search.js";
import { showTwins } from "./twins.js";

takePictures((file) => searchBy(file));
chooseAgain();
showTwins();
loadMoreOnClick();
judgeOnClick();
copyOnClick();
listenForKeys({
  escape: () => {
    stopSearch();
    stopJudging();
  },
});
busyWhileLeaving();
watchRun();
