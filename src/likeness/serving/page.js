const ask = async (input) => {
  const photos = [];
  for (const file of [...input.files].slice(0, Number(input.dataset.photos) + 1)) {
    const fits = file.size <= Number(input.dataset.bytes);
    const sent = fits && (await fetch("photos", { method: "POST", body: file, headers: { "x-photo": "1" } }).catch(() => null));
    photos.push({ name: file.name, size: file.size, token: sent && sent.ok ? await sent.text() : "" });
  }
  input.value = "";
  if (!photos.length) return;
  if (input.name === "more") trigger("more", { photos });
  else trigger("ask", { photos });
};
element.addEventListener("change", (event) => event.target.matches("input[type=file]") && ask(event.target));
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.classList.contains("back")) trigger("back");
  else if (button.dataset.row) trigger("pick", { side: Number(button.dataset.side), row: button.dataset.row });
});
watch("value", () => {
  const arrived = element.querySelector("[data-arrived]");
  if (!arrived) return;
  arrived.focus({ preventScroll: true });
  const { top } = arrived.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) arrived.closest("section").scrollIntoView();
});
