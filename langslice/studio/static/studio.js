// What pages can do without, made easier: a slider over the sizes, copying, and progress without loading the page again.
"use strict";

const slide = document.getElementById("slide");
if (slide) {
  const picks = [...document.querySelectorAll("#sizes input[name=rows]")];
  const shown = document.getElementById("shown");
  const show = () => {
    const place = picks.findIndex((pick) => pick.checked);
    const cells = [...picks[place].closest("tr").cells].map((cell) => cell.textContent.trim());
    const names = [...document.querySelectorAll("#sizes thead th")].map((cell) => cell.textContent.trim());
    slide.value = place;
    shown.textContent = cells.map((text, at) => `${names[at]} ${text}`).join(" · ");
    slide.setAttribute("aria-valuetext", `${cells[0]} rows`);
  };
  slide.addEventListener("input", () => { picks[Number(slide.value)].checked = true; show(); });
  picks.forEach((pick) => pick.addEventListener("change", show));
  slide.closest("p").hidden = false;
  show();
}

for (const text of navigator.clipboard ? document.querySelectorAll("[data-copy]") : []) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text.textContent);
    button.textContent = "Copied";
  });
  text.after(button);
}

const state = document.getElementById("state");
if (state && state.dataset.status === "running") {
  const look = async () => {
    try {
      const answer = await fetch(`${location.pathname}/state`);
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("state");
      if (found && found.dataset.status !== "running") { location.reload(); return; }
      const here = document.getElementById("state");
      // Replaced only where something changed, so that screen readers hear each step once.
      if (found && found.innerHTML !== here.innerHTML) here.replaceChildren(...found.childNodes);
    } catch { /* the studio is away for a moment */ }
    setTimeout(look, 1000);
  };
  setTimeout(look, 1000);
}
