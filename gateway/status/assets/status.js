// Keeps the page fresh without a reload: asks for it again and puts the new content in the old one's place. A browser
// without scripts reloads it instead (the template's <noscript>).
"use strict";

const PERIOD_MS = 2000;
const PATIENCE_MS = 10000;

async function refresh() {
  const age = document.getElementById("age");
  try {
    // By the origin: a page that was opened with user and password in its address may not be fetched under that one.
    const answer = await fetch(`${location.origin}/status`, {
      headers: { Accept: "text/html" },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    document.querySelector("link[rel=icon]").replaceWith(fresh.querySelector("link[rel=icon]"));
    document.title = fresh.title;
    age.hidden = true;
  } catch {
    age.hidden = false;
  }
}

async function keepFresh() {
  // A page that nobody looks at asks for nothing, and is fresh as soon as somebody does.
  if (!document.hidden && !getSelection().toString()) await refresh();
  setTimeout(keepFresh, PERIOD_MS);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
setTimeout(keepFresh, PERIOD_MS);
