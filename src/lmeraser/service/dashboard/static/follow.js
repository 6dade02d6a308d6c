// Follows a request: says each step, moves the bar, and takes the page anew when the state changes.
"use strict";

const shown = document.getElementById("request");
const spoken = document.getElementById("spoken");

function say(text) {
  spoken.textContent = text;
}

async function renew() {
  const answer = await fetch(location.pathname, { credentials: "same-origin" });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("request");
  if (fresh === null) {
    location.reload(); // the session ended
    return;
  }
  shown.replaceChildren(...fresh.childNodes);
  shown.dataset.state = fresh.dataset.state;
  say("The request is " + fresh.dataset.state.replace("_", " ") + ".");
}

function move(step) {
  const text = document.getElementById("step");
  const bar = document.getElementById("bar");
  if (text === null || bar === null) {
    return;
  }
  if (text.textContent !== step.step) {
    text.textContent = step.step;
    say(step.step);
  }
  if (step.total) {
    bar.max = step.total;
    bar.value = step.done;
  } else {
    bar.removeAttribute("value");
  }
}

const source = new EventSource(shown.dataset.events);
source.addEventListener("progress", (event) => move(JSON.parse(event.data)));
source.addEventListener("status", async (event) => {
  const state = JSON.parse(event.data).extensions.lmeraser.state;
  if (["completed", "cancelled", "failed"].includes(state)) {
    source.close(); // else the browser would connect again
  }
  if (state !== shown.dataset.state) {
    await renew();
  }
});
