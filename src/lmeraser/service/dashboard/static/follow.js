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

// The grace period: counts down to the second; the text that the server sent stands until then.
function countDown() {
  const shown = document.getElementById("countdown");
  if (shown === null) {
    return;
  }
  const ends = Date.now() + 1000 * Number(shown.dataset.seconds);
  const timer = setInterval(() => {
    const left = Math.max(0, Math.round((ends - Date.now()) / 1000));
    const parts = [Math.floor(left / 3600), Math.floor(left / 60) % 60, left % 60];
    shown.textContent = parts.map((part) => String(part).padStart(2, "0")).join(":");
    if (left === 0 || !shown.isConnected) {
      clearInterval(timer);
    }
  }, 1000);
}
countDown();

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
