// Follows a request: announces each step, updates the progress bar, and reloads the content when the state changes.
"use strict";

const content = document.getElementById("request");
const announcement = document.getElementById("announcement");

function announce(text) {
  announcement.textContent = text;
}

async function reloadContent() {
  const response = await fetch(location.pathname, { credentials: "same-origin" });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("request");
  if (fresh === null) {
    location.reload(); // the session ended
    return;
  }
  content.replaceChildren(...fresh.childNodes);
  content.dataset.state = fresh.dataset.state;
  announce("The request is " + fresh.dataset.state.replace("_", " ") + ".");
}

function showProgress(progress) {
  const text = document.getElementById("step");
  const bar = document.getElementById("bar");
  if (text === null || bar === null) {
    return;
  }
  if (text.textContent !== progress.step) {
    text.textContent = progress.step;
    announce(progress.step);
  }
  if (progress.total) {
    bar.max = progress.total;
    bar.value = progress.done;
  } else {
    bar.removeAttribute("value");
  }
}

const source = new EventSource(content.dataset.events);
source.addEventListener("progress", (event) => showProgress(JSON.parse(event.data)));
source.addEventListener("status", async (event) => {
  const state = JSON.parse(event.data).extensions.lmeraser.state;
  if (["completed", "cancelled", "failed"].includes(state)) {
    source.close(); // otherwise the browser would reconnect
  }
  if (state !== content.dataset.state) {
    await reloadContent();
  }
});
